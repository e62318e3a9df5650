//! Measures servers side by side: one that keeps all in memory, one that spills, or one that a user
//! runs elsewhere, with the same work and the same data.
//!
//! In the order in which a run goes: `plan` checks what is asked; `server` starts a server in a
//! process of its own, so that its memory is its own; `round` runs the steps of `lists` and `values`
//! with what `data` makes, while `watch` looks at the server; `figures` puts rounds together; `chart`
//! and `page` show them.

pub(crate) mod plan;
pub(crate) mod step;
pub(crate) mod data;
pub(crate) mod server;
pub(crate) mod watch;
pub(crate) mod progress;
pub(crate) mod round;
mod lists;
mod values;
pub(crate) mod figures;
pub(crate) mod machine;
pub(crate) mod report;
mod chart;
pub(crate) mod page;
