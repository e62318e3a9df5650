//! Tests of the cache without a server.
