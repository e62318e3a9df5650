//! What the disk gives by itself in the minute in which gets were measured, and what they made of it.

use rhash_harness::{Disk, Result, Unit};

/// Adds the disk's rate now, sixteen reads at a time, and the share of it that gets in batches came to.
pub(crate) fn of_batches(
    disk: &Disk,
    rate: f64,
    metric: &str,
    add: &mut impl FnMut(&str, Unit, f64),
) -> Result<()> {
    let reads = disk.reads_now()?;
    add(&format!("{metric}, disk then"), Unit::PerSecond, reads);
    add(&format!("{metric}, of the disk"), Unit::Times, rate / reads);
    Ok(())
}

/// Adds what a read of the disk and a round trip take now, and what single gets took beyond that.
pub(crate) fn of_singles(
    disk: &Disk,
    p50_us: f64,
    metric: &str,
    add: &mut impl FnMut(&str, Unit, f64),
) -> Result<()> {
    let floor_us = disk.read_and_round_trip_us()?;
    let name = format!("{metric}, disk and round trip then");
    add(&name, Unit::Microseconds, floor_us);
    let name = format!("{metric}, beyond the disk");
    add(&name, Unit::Microseconds, p50_us - floor_us);
    Ok(())
}
