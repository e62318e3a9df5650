//! Tables as the command line sees them: keys and values are arguments going in, and JSON coming
//! out, whatever the table's kind and codec.

use rhash_client::{
    BytesCodec, Codec, Counter, Durability, EncodeAs, Item, List, Stored, TableInfo, TableKind,
    Value, ValueCodec,
    blocking::{Client, RemoteHash, TableBuilder},
};
use serde_json::{Value as Json, json};

use crate::{
    failure::{Failure, Outcome},
    json::{bytes_of_argument, json_of_bytes, json_of_value, value_of_argument},
};

/// An open table of any kind that the command line can show.
pub(crate) trait AnyTable {
    /// The value of a key.
    fn get(&self, key: &str) -> Outcome<Option<Json>>;
    /// Sets the value of a key.
    fn put(&self, key: &str, value: &str) -> Outcome;
    /// Removes a key.
    fn discard(&self, key: &str) -> Outcome;
    /// Counts the entries.
    fn len(&self) -> Outcome<u64>;
    /// Shows the keys to `see` until it has seen enough and says false.
    fn each_key(&self, see: &mut dyn FnMut(Json) -> Outcome<bool>) -> Outcome;
    /// Shows the entries to `see` until it has seen enough and says false.
    fn each_entry(&self, see: &mut dyn FnMut(Json, Json) -> Outcome<bool>) -> Outcome;
}

/// Opens a table that exists.
///
/// # Errors
/// There is none, its codec is for programs only, or the client failed.
pub(crate) fn open(client: &Client, name: &str) -> Outcome<Box<dyn AnyTable>> {
    match client.find_table(name)? {
        Some(info) => open_as(client, name, &info, None),
        None => Err(no_such_table(name)),
    }
}

/// Opens a table, and makes one of values where there is none; it must have this durability, if any is given.
///
/// # Errors
/// As for `open`; the table has another durability.
pub(crate) fn open_or_create(
    client: &Client,
    name: &str,
    durability: Option<Durability>,
) -> Outcome<Box<dyn AnyTable>> {
    match client.find_table(name)? {
        Some(info) => open_as(client, name, &info, durability),
        None => {
            let table = builder(client, name, durability).open::<Value, Value, ValueCodec>()?;
            Ok(Box::new(Typed { table }))
        }
    }
}

pub(crate) fn no_such_table(name: &str) -> Failure {
    Failure::plain(format!(
        "there is no table `{name}`; `rhash tables` lists those that there are"
    ))
}

fn builder(client: &Client, name: &str, durability: Option<Durability>) -> TableBuilder {
    let builder = client.table(name);
    match durability {
        Some(durability) => builder.durability(durability),
        None => builder,
    }
}

fn open_as(
    client: &Client,
    name: &str,
    info: &TableInfo,
    durability: Option<Durability>,
) -> Outcome<Box<dyn AnyTable>> {
    let table = builder(client, name, durability).existing();
    match (&*info.codec, info.kind) {
        ("value", TableKind::Values) => typed::<Value, Value, ValueCodec>(table),
        ("value", TableKind::Lists) => typed::<Value, List<Value>, ValueCodec>(table),
        ("value", TableKind::Counters) => typed::<Value, Counter, ValueCodec>(table),
        ("bytes", TableKind::Values) => typed::<Vec<u8>, Vec<u8>, BytesCodec>(table),
        ("bytes", TableKind::Lists) => typed::<Vec<u8>, List<u8>, BytesCodec>(table),
        ("bytes", TableKind::Counters) => typed::<Vec<u8>, Counter, BytesCodec>(table),
        (codec, _) => Err(Failure::plain(format!(
            "the table `{name}` has the codec `{codec}`; this command reads those of `value` and \
             `bytes`"
        ))),
    }
}

fn typed<K: Key<C>, V: Shown<C>, C: Codec>(table: TableBuilder) -> Outcome<Box<dyn AnyTable>> {
    let table = table.open::<K, V, C>()?;
    Ok(Box::new(Typed { table }))
}

/// A key that arguments stand for.
trait Key<C>: Item<C> {
    fn parse(argument: &str) -> Self;
    fn json(&self) -> Json;
}

impl Key<ValueCodec> for Value {
    fn parse(argument: &str) -> Self {
        value_of_argument(argument)
    }

    fn json(&self) -> Json {
        json_of_value(self)
    }
}

impl Key<BytesCodec> for Vec<u8> {
    fn parse(argument: &str) -> Self {
        bytes_of_argument(argument)
    }

    fn json(&self) -> Json {
        json_of_bytes(self)
    }
}

/// What a table holds, and arguments stand for.
trait Shown<C>: Stored<C> + Sized {
    /// What a put takes.
    type Given: EncodeAs<Self, C>;

    fn parse(argument: &str) -> Outcome<Self::Given>;
    fn json(read: &Self::Read) -> Json;
}

impl Shown<ValueCodec> for Value {
    type Given = Self;

    fn parse(argument: &str) -> Outcome<Self> {
        Ok(value_of_argument(argument))
    }

    fn json(read: &Self) -> Json {
        json_of_value(read)
    }
}

impl Shown<ValueCodec> for List<Value> {
    type Given = Vec<Value>;

    fn parse(argument: &str) -> Outcome<Vec<Value>> {
        match value_of_argument(argument) {
            Value::List(values) => Ok(values),
            _ => Err(Failure::Usage(format!(
                "this is a table of lists, and `{argument}` is no JSON list"
            ))),
        }
    }

    fn json(read: &Vec<Value>) -> Json {
        read.iter().map(json_of_value).collect()
    }
}

impl<C: Codec> Shown<C> for Counter
where
    Self: Stored<C, Read = i64>,
{
    type Given = i64;

    fn parse(argument: &str) -> Outcome<i64> {
        argument.parse().map_err(|_no_number| {
            Failure::Usage(format!(
                "this is a table of counters, and `{argument}` is no whole number of 64 bits"
            ))
        })
    }

    fn json(read: &i64) -> Json {
        json!(read)
    }
}

impl Shown<BytesCodec> for Vec<u8> {
    type Given = Self;

    fn parse(argument: &str) -> Outcome<Self> {
        Ok(bytes_of_argument(argument))
    }

    fn json(read: &Self) -> Json {
        json_of_bytes(read)
    }
}

impl Shown<BytesCodec> for List<u8> {
    type Given = Vec<u8>;

    fn parse(argument: &str) -> Outcome<Vec<u8>> {
        Ok(bytes_of_argument(argument))
    }

    fn json(read: &Vec<u8>) -> Json {
        json_of_bytes(read)
    }
}

/// A table with its types.
struct Typed<K: Key<C>, V: Shown<C>, C: Codec> {
    table: RemoteHash<K, V, C>,
}

impl<K: Key<C>, V: Shown<C>, C: Codec> AnyTable for Typed<K, V, C> {
    fn get(&self, key: &str) -> Outcome<Option<Json>> {
        Ok(self.table.get(K::parse(key))?.as_ref().map(V::json))
    }

    fn put(&self, key: &str, value: &str) -> Outcome {
        self.table.insert(K::parse(key), V::parse(value)?)?;
        Ok(self.table.flush()?)
    }

    fn discard(&self, key: &str) -> Outcome {
        self.table.discard(K::parse(key))?;
        Ok(self.table.flush()?)
    }

    fn len(&self) -> Outcome<u64> {
        Ok(self.table.len()?)
    }

    fn each_key(&self, see: &mut dyn FnMut(Json) -> Outcome<bool>) -> Outcome {
        for key in self.table.keys() {
            if !see(key?.json())? {
                break;
            }
        }
        Ok(())
    }

    fn each_entry(&self, see: &mut dyn FnMut(Json, Json) -> Outcome<bool>) -> Outcome {
        for entry in self.table.iter() {
            let (key, value) = entry?;
            if !see(key.json(), V::json(&value))? {
                break;
            }
        }
        Ok(())
    }
}
