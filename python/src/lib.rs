//! The native half of the Python package `mivrhash`: the client's tables as mappings, and the server.
//!
//! In the order of a call's way: `table` is the class below `RHash`, `opening` opens it, `shared` decides what the caches
//! answer and what the server, `encode` and `decode` turn objects into bytes and back, `rare` those
//! of the standard library and of numpy, `live` keeps values that can change in place, `trail` makes
//! batches of gets that follow an iteration, `scan` iterates. `client` connects, `fork` keeps children
//! from what is not theirs, `errors` raises, and `server` serves.
//!
//! What is not hot is written in Python, in `mivrhash/`.

mod table;
mod opening;
mod shared;
mod live;
mod trail;
mod scan;
mod encode;
mod decode;
mod rare;
mod client;
mod fork;
mod errors;
mod server;

use pyo3::{prelude::*, types::PyBytes};

/// The bytes of a value, or of a key, in the codec `value`.
#[pyfunction]
#[pyo3(signature = (value, *, key=false, pickle=false))]
fn encode_value<'py>(
    value: &Bound<'py, PyAny>,
    key: bool,
    pickle: bool,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut bytes = Vec::new();
    let mut encoder = encode::Encoder::new(pickle);
    if key {
        encoder.key(value, &mut bytes)?;
    } else {
        encoder.value(value, &mut bytes)?;
    }
    Ok(PyBytes::new(value.py(), &bytes))
}

/// The value that these bytes are.
#[pyfunction]
#[pyo3(signature = (data, *, pickle=false))]
fn decode_value<'py>(py: Python<'py>, data: &[u8], pickle: bool) -> PyResult<Bound<'py, PyAny>> {
    decode::Decoder::new(pickle).whole(py, data)
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<client::Client>()?;
    module.add_class::<table::Table>()?;
    module.add_class::<scan::Scan>()?;
    module.add_class::<server::Server>()?;
    module.add_function(wrap_pyfunction!(encode_value, module)?)?;
    module.add_function(wrap_pyfunction!(decode_value, module)?)?;
    module.add_function(wrap_pyfunction!(fork::forked, module)?)?;
    module.add_function(wrap_pyfunction!(server::become_server, module)?)?;
    module.add_function(wrap_pyfunction!(server::examine, module)?)?;
    module.add_function(wrap_pyfunction!(server::server_help, module)?)?;
    module.add_function(wrap_pyfunction!(server::new_token, module)?)?;
    Ok(())
}
