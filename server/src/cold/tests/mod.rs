//! Tests of the cold tier.
