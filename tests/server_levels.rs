//! Tables of one server have durabilities of their own: what each promises is there after a kill, and so are
//! the levels.

mod server_support;

use std::path::Path;

use rhash_protocol::{
    Durability, ErrorCode, Op, OpenMode, Ops, Request, Response, TableId, TableInfo, TableKind,
};
use server_support::{Peer, ServerProcess, TestResult, ops_bytes};

const LEVELS: [(&str, Durability); 3] = [
    ("none", Durability::None),
    ("everysec", Durability::EverySec),
    ("always", Durability::Always),
];

fn start(listen: &str, dir: &Path, durability: &str) -> TestResult<ServerProcess> {
    let data = dir.to_str().ok_or("not UTF-8")?;
    let args = ["--mem-limit", "24M", "--data", data, "--durability"];
    ServerProcess::start_at(listen, &[&args[..], &[durability]].concat())
}

fn restart(server: ServerProcess, dir: &Path, durability: &str) -> TestResult<ServerProcess> {
    let address = server.address.to_string();
    drop(server);
    start(&address, dir, durability)
}

fn open(name: &str, durability: Option<Durability>) -> Request<'_> {
    Request::Open {
        name: Some(name),
        kind: Some(TableKind::Values),
        codec: Some("bytes"),
        mode: OpenMode::OpenOrCreate,
        durability,
    }
}

async fn open_at(peer: &mut Peer, name: &str, durability: Durability) -> TestResult<TableId> {
    match peer.call(open(name, Some(durability))).await?.response()? {
        Response::Opened { table, .. } => Ok(table),
        response => Err(format!("{response:?}").into()),
    }
}

/// Each table's level, and whether that is its own, by name.
async fn levels(peer: &mut Peer) -> TestResult<Vec<(Option<String>, Durability, bool)>> {
    match peer.call(Request::Tables).await?.response()? {
        Response::Tables(tables) => {
            let level = |table: TableInfo| (table.name, table.durability, table.own_durability);
            Ok(tables.into_iter().map(level).collect())
        }
        response => Err(format!("{response:?}").into()),
    }
}

fn own_levels() -> Vec<(Option<String>, Durability, bool)> {
    let mut levels = LEVELS.map(|(name, level)| (Some(name.to_owned()), level, true));
    levels.sort_by(|left, right| left.0.cmp(&right.0));
    levels.to_vec()
}

#[tokio::test]
async fn three_tables_at_three_levels_survive_a_kill_as_they_say() -> TestResult {
    for default in ["everysec", "always"] {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let dir = tempfile::tempdir()?;
        let mut server = start("127.0.0.1:0", dir.path(), default)?;
        let mut written = 0u32;
        for round in 0..3 {
            let mut peer = Peer::connect(&server).await?;
            let mut tables = Vec::new();
            for (name, level) in LEVELS {
                tables.push(open_at(&mut peer, name, level).await?);
            }
            assert_eq!(levels(&mut peer).await?, own_levels(), "round {round}");
            for (table, (name, level)) in tables.iter().zip(LEVELS) {
                let kept = peer.len(*table).await?;
                if level == Durability::None {
                    assert!(kept < u64::from(written.max(1)), "only in RAM: {kept}");
                } else {
                    assert_eq!(kept, u64::from(written), "{name}");
                }
            }
            // One session writes to all of them in turn, so that its requests are logged and not.
            for _ in 0..rng.u32(50..200) {
                let key = written.to_le_bytes();
                for table in &tables {
                    peer.put(*table, &key, b"value").await?;
                }
                written += 1;
            }
            drop(peer);
            // A server whose own level is none keeps the log for those that ask for it.
            let default = ["none", default][round % 2];
            server = restart(server, dir.path(), default)?;
        }
        assert!(server.stop()?.success());
    }
    Ok(())
}

/// What had been spilled of a table that is not logged is there after a kill, and sound.
#[tokio::test]
async fn a_table_that_is_not_logged_keeps_what_was_spilled() -> TestResult {
    const VALUE: [u8; 4000] = [7; 4000];
    const VALUES: u32 = 12_000;
    let dir = tempfile::tempdir()?;
    let server = start("127.0.0.1:0", dir.path(), "everysec")?;
    let mut peer = Peer::connect(&server).await?;
    let table = open_at(&mut peer, "none", Durability::None).await?;
    for first in (0..VALUES).step_by(40) {
        let keys: Vec<_> = (first..first + 40).map(u32::to_le_bytes).collect();
        let puts: Vec<_> = keys
            .iter()
            .map(|key| Op::Put { key, value: &VALUE })
            .collect();
        peer.write(table, &puts).await?;
    }
    let logged = match peer.call(Request::Stats).await?.response()? {
        Response::Stats(stats) => stats.log_bytes,
        response => return Err(format!("{response:?}").into()),
    };
    assert!(logged < 1 << 20, "{logged} bytes of log");
    drop(peer);
    let server = restart(server, dir.path(), "everysec")?;
    let mut peer = Peer::connect(&server).await?;
    let table = open_at(&mut peer, "none", Durability::None).await?;
    let kept = peer.len(table).await?;
    assert!(kept > 0 && kept < u64::from(VALUES), "{kept} were kept");
    for number in (0..VALUES).step_by(97) {
        let value = peer.get(table, &number.to_le_bytes()).await?;
        assert!(value.is_none_or(|value| value == VALUE), "{number}");
    }
    Ok(())
}

#[tokio::test]
async fn a_level_that_a_table_has_not_is_refused_by_name() -> TestResult {
    let dir = tempfile::tempdir()?;
    let server = start("127.0.0.1:0", dir.path(), "everysec")?;
    let mut peer = Peer::connect(&server).await?;
    open_at(&mut peer, "safe", Durability::Always).await?;
    peer.call(open("plain", None)).await?.response()?;
    open_at(&mut peer, "plain", Durability::EverySec).await?;
    for (name, asked, text) in [
        ("safe", Durability::None, "has durability always, not none"),
        (
            "safe",
            Durability::EverySec,
            "has durability always, not everysec",
        ),
        (
            "plain",
            Durability::Always,
            "has durability everysec (the server's, which it follows), not always",
        ),
    ] {
        let error = peer.call(open(name, Some(asked))).await?.error()?;
        assert_eq!(error.code, ErrorCode::WrongDurability);
        assert!(error.text.contains(text), "{}", error.text);
    }
    let temporary = Request::Open {
        name: None,
        kind: Some(TableKind::Values),
        codec: Some("bytes"),
        mode: OpenMode::CreateNew,
        durability: Some(Durability::None),
    };
    assert_eq!(peer.call(temporary).await?.code()?, ErrorCode::BadRequest);

    let memory = ServerProcess::start_small()?;
    let other = tempfile::tempdir()?;
    let unlogged = start("127.0.0.1:0", other.path(), "none")?;
    for (server, way_out) in [
        (&memory, "--data DIR"),
        (&unlogged, "--durability everysec"),
    ] {
        let mut peer = Peer::connect(server).await?;
        let error = peer.call(open("t", Some(Durability::Always))).await?;
        let error = error.error()?;
        assert_eq!(error.code, ErrorCode::WrongDurability);
        assert!(error.text.contains(way_out), "{}", error.text);
        open_at(&mut peer, "t", Durability::None).await?;
    }
    Ok(())
}

/// A session outlives its server for the sake of its logged tables. A write to another that it sends again is
/// refused: nobody knows whether it was applied, and spilled, before.
#[tokio::test]
async fn a_session_goes_on_with_logged_tables_and_opens_the_others_again() -> TestResult {
    let dir = tempfile::tempdir()?;
    let server = start("127.0.0.1:0", dir.path(), "everysec")?;
    let mut peer = Peer::connect(&server).await?;
    let safe = open_at(&mut peer, "always", Durability::Always).await?;
    let loose = open_at(&mut peer, "none", Durability::None).await?;
    peer.put(loose, b"k", b"v").await?;
    peer.call(Request::Clear { table: loose }).await?;
    peer.put(safe, b"k", b"v").await?;
    peer.put(loose, b"k", b"v").await?;
    let (ticket, sequence) = (peer.welcome.ticket, peer.sequence);
    drop(peer);

    let server = restart(server, dir.path(), "everysec")?;
    let mut peer = Peer::greet(&server, Some(ticket))
        .await?
        .map_err(|refusal| refusal.text)?;
    assert!(peer.welcome.resumed);
    // The last write is sent again.
    peer.sequence = sequence - 1;
    for _ in 0..2 {
        let ops = ops_bytes(&[Op::Discard { key: b"k" }]);
        let ops = Ops::new(1, &ops);
        let request = Request::Write { table: loose, ops };
        let error = peer.call(request).await?.error()?;
        assert_eq!(error.code, ErrorCode::TableClosed, "{}", error.text);
        assert!(error.text.contains("durability none"), "{}", error.text);
    }
    assert_eq!(peer.get(safe, b"k").await?.as_deref(), Some(&b"v"[..]));
    peer.put(safe, b"l", b"w").await?;
    assert_eq!(open_at(&mut peer, "none", Durability::None).await?, loose);
    peer.put(loose, b"k", b"w").await?;
    assert_eq!(peer.get(loose, b"k").await?.as_deref(), Some(&b"w"[..]));

    // A session that writes to such tables alone ends with its server.
    let mut other = Peer::connect(&server).await?;
    open_at(&mut other, "none", Durability::None).await?;
    let ticket = other.welcome.ticket;
    drop((peer, other));
    let server = restart(server, dir.path(), "everysec")?;
    let refused = Peer::greet(&server, Some(ticket)).await?;
    assert_eq!(
        refused.err().map(|refusal| refusal.code),
        Some(ErrorCode::SessionExpired)
    );
    Ok(())
}

#[tokio::test]
async fn a_sync_brings_all_levels_to_stable_storage() -> TestResult {
    let dir = tempfile::tempdir()?;
    let server = start("127.0.0.1:0", dir.path(), "everysec")?;
    let mut peer = Peer::connect(&server).await?;
    for (name, level) in LEVELS {
        let table = open_at(&mut peer, name, level).await?;
        peer.put(table, b"synced", b"v").await?;
    }
    let answered = peer.call(Request::Sync).await?;
    assert_eq!(answered.response()?, Response::Done);
    drop(peer);
    let server = restart(server, dir.path(), "everysec")?;
    let mut peer = Peer::connect(&server).await?;
    for (name, level) in LEVELS {
        let table = open_at(&mut peer, name, level).await?;
        assert!(peer.get(table, b"synced").await?.is_some(), "{name}");
    }
    Ok(())
}
