//! Errors of the client as exceptions of `mivrhash`.
//!
//! The classes are written in Python, in `mivrhash/_errors.py`, where they can have built-in classes as
//! second parents.

use pyo3::{exceptions::PyRuntimeError, prelude::*, sync::PyOnceLock, types::PyList};
use rhash_client::{Error, ErrorKind};

use crate::decode::Decoder;

static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

/// An exception of the class of this name.
pub(crate) fn raise(py: Python<'_>, class: &str, text: &str) -> PyErr {
    match make(py, class, text) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

fn make<'py>(py: Python<'py>, class: &str, text: &str) -> PyResult<Bound<'py, PyAny>> {
    let module = MODULE.get_or_try_init(py, || py.import("mivrhash._errors").map(Bound::unbind))?;
    module.bind(py).getattr(class)?.call1((text,))
}

/// Bytes in a table are not what this package writes.
pub(crate) fn decode(py: Python<'_>, text: &str) -> PyErr {
    raise(py, "DecodeError", &format!("cannot be decoded: {text}"))
}

/// The handle was closed or let go of.
pub(crate) fn closed(py: Python<'_>) -> PyErr {
    raise(py, "TableClosedError", "the table was closed")
}

/// An error of the client.
pub(crate) fn of_client(py: Python<'_>, error: &Error) -> PyErr {
    match with_keys(py, error) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

fn with_keys<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    let exception = make(py, class_of(error), &with_causes(error))?;
    let failed = error.keys();
    if failed.count() > 0 {
        let keys = PyList::empty(py);
        for key in failed.first() {
            // A key that cannot be shown must not hide the error.
            if let Ok(key) = Decoder::new(false).whole(py, key) {
                keys.append(key)?;
            }
        }
        exception.setattr("keys", keys)?;
        exception.setattr("key_count", failed.count())?;
    }
    Ok(exception)
}

/// An error's text, and those of its causes that it does not tell itself.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(&format!(": {more}"));
        }
        cause = error.source();
    }
    text
}

fn class_of(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Connection => "ConnectionLostError",
        ErrorKind::ShuttingDown => "ServerStoppingError",
        ErrorKind::Timeout => "ServerTimeoutError",
        ErrorKind::SessionExpired => "SessionExpiredError",
        ErrorKind::TableClosed => "TableClosedError",
        ErrorKind::NoSuchTable => "NoSuchTableError",
        ErrorKind::TableExists => "TableExistsError",
        ErrorKind::WrongKind => "WrongKindError",
        ErrorKind::WrongCodec => "WrongCodecError",
        ErrorKind::WrongDurability => "WrongDurabilityError",
        ErrorKind::KeyTooLarge => "KeyTooLargeError",
        ErrorKind::ValueTooLarge => "ValueTooLargeError",
        ErrorKind::OutOfMemory => "ServerMemoryError",
        ErrorKind::DiskFull => "DiskFullError",
        ErrorKind::Storage => "StorageError",
        ErrorKind::Damaged => "DamagedError",
        ErrorKind::Encode => "EncodeError",
        ErrorKind::Decode => "DecodeError",
        ErrorKind::FlushFailed => flush_class_of(error),
        ErrorKind::Denied => "DeniedError",
        ErrorKind::Untrusted => "UntrustedError",
        ErrorKind::Busy => "ServerBusyError",
        ErrorKind::WrongVersion | ErrorKind::Protocol => "ProtocolError",
        ErrorKind::Usage => "UsageError",
        _ => "RHashError",
    }
}

/// A failed flush is also what its cause is.
fn flush_class_of(error: &Error) -> &'static str {
    let source = std::error::Error::source(error);
    match source
        .and_then(|cause| cause.downcast_ref::<Error>())
        .map(Error::kind)
    {
        Some(ErrorKind::OutOfMemory) => "FlushMemoryError",
        Some(ErrorKind::Connection | ErrorKind::ShuttingDown | ErrorKind::Untrusted) => {
            "FlushConnectionError"
        }
        Some(ErrorKind::Timeout) => "FlushTimeoutError",
        _ => "FlushFailedError",
    }
}

/// A client's error on its way to Python, for closures that may meet both kinds.
#[derive(Debug)]
pub(crate) enum Failure {
    Client(Error),
    Python(PyErr),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

impl Failure {
    pub(crate) fn into_py(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Client(error) => of_client(py, &error),
            Self::Python(error) => error,
        }
    }
}

/// An error of this package that is not the caller's fault.
pub(crate) fn internal(text: &str) -> PyErr {
    PyRuntimeError::new_err(text.to_owned())
}
