//! What a thread does when a cold read would wait for the disk.
//!
//! Most cold blocks that are read lie in the system's page cache and cost microseconds; some are on
//! the disk, and cost a hundred times as much. Nobody knows before the read which it will be. So a
//! read can be tried in the page cache alone first, and what the thread does if that is not enough is
//! set here, by whoever begins the work: waiting, giving up, or calling others to help, then waiting.
//! Files tell of it; whoever reads them in passing need not know.

use std::{cell::RefCell, fmt, sync::Arc};

thread_local! {
    static RULE: RefCell<Rule> = const { RefCell::new(Rule::Wait) };
}

/// What the thread does before it waits.
#[derive(Clone, Default)]
enum Rule {
    /// Nothing.
    #[default]
    Wait,
    /// It does not wait; whether it would have had to.
    Never { refused: bool },
    /// It tells others.
    Tell(Arc<dyn Fn()>),
}

impl fmt::Debug for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Wait => "Wait",
            Self::Never { .. } => "Never",
            Self::Tell(_) => "Tell",
        })
    }
}

/// A read would have had to wait, and must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WouldWait;

/// Does `work`; none if it had to wait for the disk, in which case what it gave means nothing.
pub(crate) fn never<T>(work: impl FnOnce() -> T) -> Option<T> {
    let (done, rule) = with_rule(Rule::Never { refused: false }, work);
    match rule {
        Rule::Never { refused: true } => None,
        _ => Some(done),
    }
}

/// Does `work`, and calls `tell` each time before it waits for the disk.
pub(crate) fn telling<T>(tell: Arc<dyn Fn()>, work: impl FnOnce() -> T) -> T {
    with_rule(Rule::Tell(tell), work).0
}

/// Whether a read of the work that is being done had to wait, and was not let.
pub(crate) fn is_refused() -> bool {
    RULE.with_borrow(|rule| matches!(rule, Rule::Never { refused: true }))
}

/// Whether a read must not wait.
pub(crate) fn is_forbidden() -> bool {
    RULE.with_borrow(|rule| matches!(rule, Rule::Never { .. }))
}

/// Whether it matters to anybody that a read waits.
pub(crate) fn is_watched() -> bool {
    RULE.with_borrow(|rule| !matches!(rule, Rule::Wait))
}

/// A read is about to wait for the disk.
///
/// # Errors
/// `WouldWait` if this thread must not.
pub(crate) fn before_waiting() -> Result<(), WouldWait> {
    let tell = RULE.with_borrow_mut(|rule| match rule {
        Rule::Wait => Ok(None),
        Rule::Never { refused } => {
            *refused = true;
            Err(WouldWait)
        }
        Rule::Tell(tell) => Ok(Some(Arc::clone(tell))),
    })?;
    if let Some(tell) = tell {
        tell();
    }
    Ok(())
}

fn with_rule<T>(rule: Rule, work: impl FnOnce() -> T) -> (T, Rule) {
    /// Puts the former rule back, also if the work panics: the thread goes on with other work.
    struct Restore {
        before: Rule,
    }
    impl Drop for Restore {
        fn drop(&mut self) {
            RULE.set(std::mem::replace(&mut self.before, Rule::Wait));
        }
    }
    let restore = Restore {
        before: RULE.replace(rule),
    };
    let done = work();
    let rule = RULE.take();
    drop(restore);
    (done, rule)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn work_that_must_not_wait_says_whether_it_had_to() {
        assert_eq!(never(|| 1), Some(1));
        assert_eq!(never(before_waiting), None);
        assert!(!is_watched() && before_waiting().is_ok());
        assert!(never(is_forbidden) == Some(true) && !is_forbidden());
        let nested = never(|| (never(before_waiting), is_watched()));
        assert_eq!(nested, Some((None, true)), "only the inner one had to");
    }

    #[test]
    fn others_are_told_before_each_wait_and_not_after_the_work() {
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        let tell = Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        telling(tell, || {
            assert!(before_waiting().is_ok() && before_waiting().is_ok())
        });
        before_waiting().unwrap();
        assert_eq!(told.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_panic_leaves_no_rule_behind() {
        let panicked = std::panic::catch_unwind(|| never(|| panic!("in the work")));
        assert!(panicked.is_err() && !is_watched());
    }
}
