//! Tests of tables over both tiers, with budgets so small that every state is visited.

mod interleavings;
mod model;
mod answer_length;
mod recovery;
mod backup;
mod kept;
mod log_fails;
mod levels;
mod resent_open;
mod kept_answers;
mod waiting;
mod working_set;
mod space;
mod give_way;
mod folded;
mod support;
