//! Connections over real sockets to a listener inside the test, so that what they hold can be seen.

use std::{net::SocketAddr, time::Instant};

use rhash_protocol::{
    Call, Request, Response, codec,
    frame::FrameHead,
    handshake::{Greeting, Hello},
};
use tokio::task::JoinHandle;

use super::*;
use crate::{
    access::Access,
    hub::HubParts,
    limits::Limits,
    listener,
    store::{Store, StoreConfig},
};

/// No wait of a test is longer.
const DEADLINE: Duration = Duration::from_secs(20);

/// A server without a disk.
struct Served {
    hub: Arc<Hub>,
    address: SocketAddr,
    stopping: watch::Sender<bool>,
    listener: JoinHandle<()>,
}

impl Served {
    async fn start() -> Self {
        let store = Store::open(StoreConfig::new(64 << 20, None)).unwrap();
        let (stopping, stopped) = watch::channel(false);
        let hub = Hub::new(HubParts {
            store,
            access: Access::new(None).unwrap(),
            tls: None,
            drain_time: Duration::from_secs(5),
            lease: Duration::from_secs(60),
            limits: Limits::for_memory(64 << 20),
            mem_limit_bytes: 64 << 20,
            value_bytes_max: 8 << 20,
            memory_only: true,
            stopping: stopped,
        });
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (listener, address) = listener::bind(&[any]).await.unwrap();
        Self {
            address,
            stopping,
            listener: listener::start(listener, Arc::clone(&hub)).unwrap(),
            hub,
        }
    }

    async fn connect(&self) -> (FrameReader<Source>, FrameWriter<Sink>) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (source, sink) = socket::split(stream);
        let (mut reader, mut writer) = (FrameReader::new(source), FrameWriter::new(sink));
        let hello = Hello {
            session: None,
            token: String::new(),
            client: "test".to_owned(),
        };
        let greeting = handshake::greet(&mut reader, &mut writer, &hello).await;
        assert!(matches!(greeting, Ok(Greeting::Welcome(_))));
        (reader, writer)
    }

    async fn stop(self) {
        self.stopping.send_replace(true);
        self.listener.await.unwrap();
        self.hub.store.stop().unwrap();
    }
}

// Room was once given back only where a message had made the buffer long, so that one which came
// in many small frames kept what it had taken until its connection fell quiet.
#[tokio::test]
async fn a_message_in_small_frames_gives_its_room_back() {
    let served = Served::start().await;
    let (mut reader, mut writer) = served.connect().await;
    let ping = body(Request::Ping);
    let (first, last) = ping.split_at(1);
    let more = FrameHead {
        kind: FrameKind::Request,
        follow: Follow::More,
        request_id: 1,
    };
    writer.write_frame(more, first).await.unwrap();
    writer.flush().await.unwrap();
    wait_for(|| !served.hub.requests_room.is_untouched()).await;
    let chunk = FrameHead::whole(FrameKind::Chunk, 1);
    writer.write_frame(chunk, last).await.unwrap();
    writer.flush().await.unwrap();
    let answer = reader.next().await.unwrap().unwrap();
    let answer: Response<'_> = codec::decode(answer.body).unwrap();
    assert_eq!(answer, Response::Pong);
    // In the middle of the next request the connection is not quiet.
    let next = FrameHead::whole(FrameKind::Request, 2)
        .header(&ping)
        .unwrap();
    let half = next.get(..5).unwrap();
    tokio::io::AsyncWriteExt::write_all(writer.get_mut(), half)
        .await
        .unwrap();
    wait_for(|| served.hub.requests_room.is_untouched()).await;
    drop((reader, writer));
    served.stop().await;
}

// Any number of clients could once have lists made of all tables at the same time.
#[tokio::test]
async fn who_asks_for_a_list_of_all_tables_waits_for_a_turn() {
    let served = Served::start().await;
    for request in [Request::Tables, Request::Stats] {
        let (mut reader, mut writer) = served.connect().await;
        let turns = [
            served.hub.listing_turn().await,
            served.hub.listing_turn().await,
        ];
        ask(&mut writer, request).await;
        // Others are answered meanwhile.
        drop(served.connect().await);
        let early = tokio::select! { biased; _ = reader.next() => true, () = async {} => false };
        assert!(!early);
        drop(turns);
        let answer = reader.next().await.unwrap().unwrap();
        let answer: Response<'_> = codec::decode(answer.body).unwrap();
        assert!(matches!(answer, Response::Tables(_) | Response::Stats(_)));
    }
    served.stop().await;
}

// A request that waited for room once kept its connection from ending with the server.
#[tokio::test]
async fn who_waits_for_room_does_not_keep_a_server_from_stopping() {
    let served = Served::start().await;
    let (mut reader, mut writer) = served.connect().await;
    let room = Arc::clone(&served.hub.answers_room);
    let _all = [room.take(usize::MAX).await, room.take(usize::MAX).await];
    ask(&mut writer, Request::Stats).await;
    wait_for(|| room.is_wanted()).await;
    served.stopping.send_replace(true);
    let word = reader.next().await.unwrap().unwrap();
    assert_eq!(word.head.kind, FrameKind::Notice);
    let word: Notice = codec::decode(word.body).unwrap();
    assert_eq!(word, Notice::ShuttingDown);
    served.stop().await;
}

/// A request that changes nothing, as it is sent.
fn body(request: Request<'_>) -> Vec<u8> {
    let call = Call {
        sequence: 0,
        settled: 0,
        request,
    };
    let mut body = Vec::new();
    codec::encode(&call, &mut body).unwrap();
    body
}

async fn ask(writer: &mut FrameWriter<Sink>, request: Request<'_>) {
    let head = FrameHead::whole(FrameKind::Request, 1);
    writer.write_frame(head, &body(request)).await.unwrap();
    writer.flush().await.unwrap();
}

async fn wait_for(condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < DEADLINE, "it did not come to be");
        tokio::task::yield_now().await;
    }
}
