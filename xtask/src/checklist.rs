//! Checks, passed and failed, said as they are made.

use serde_json::{Value, json};

use crate::failure::Failure;

/// One check.
#[derive(Debug, Clone)]
struct Check {
    name: String,
    passed: bool,
    detail: String,
}

/// All checks of a task so far.
#[derive(Debug, Default)]
pub(crate) struct Checklist {
    checks: Vec<Check>,
}

impl Checklist {
    /// Records a check and says it.
    pub(crate) fn check(&mut self, name: &str, passed: bool, detail: String) {
        say!(
            "xtask: {} {name}: {detail}",
            if passed { "ok    " } else { "FAILED" }
        );
        self.checks.push(Check {
            name: name.to_owned(),
            passed,
            detail,
        });
    }

    /// Takes the checks of another list behind its own.
    pub(crate) fn extend(&mut self, other: Self) {
        self.checks.extend(other.checks);
    }

    /// The checks as a JSON array.
    pub(crate) fn json(&self) -> Value {
        let checks = self.checks.iter().map(
            |check| json!({ "name": check.name, "passed": check.passed, "detail": check.detail }),
        );
        checks.collect()
    }

    /// Whether all passed so far.
    pub(crate) fn all_passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }

    /// Whether every check of the task passed.
    pub(crate) fn outcome(&self, task: &str) -> Result<(), Failure> {
        if self.all_passed() {
            say!("xtask: {task}: all {} checks passed", self.checks.len());
            return Ok(());
        }
        let failed = self.checks.iter().filter(|check| !check.passed);
        let failed: Vec<&str> = failed.map(|check| check.name.as_str()).collect();
        let (count, all) = (failed.len(), self.checks.len());
        Err(Failure::Failed(format!(
            "{count} of {all} checks failed: {}",
            failed.join("; ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_check_fails_the_whole_and_is_named() {
        let mut checks = Checklist::default();
        checks.check("first", true, String::new());
        assert!(checks.outcome("it").is_ok());
        checks.check("second", false, "1 of 2".to_owned());
        let failure = checks.outcome("it").unwrap_err();
        assert_eq!(failure.to_string(), "1 of 2 checks failed: second");
    }
}
