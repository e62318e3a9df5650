//! Handshakes over streams in memory, and the bytes of a hello.

use tokio::io::{AsyncWriteExt as _, duplex};

use super::*;
use crate::{ErrorCode, Response, frame::HEADER_BYTES, limits};

fn hello() -> Hello {
    Hello {
        session: Some(Ticket {
            id: 5,
            secret: [0xab; 16],
        }),
        token: "t".into(),
        client: "test".into(),
    }
}

fn welcome() -> Welcome {
    Welcome {
        server: "rhash 0.1.0".into(),
        ticket: Ticket {
            id: 5,
            secret: [0xcd; 16],
        },
        resumed: true,
        lease_ms: 60_000,
        limits: Limits {
            key_bytes: limits::KEY_BYTES_MAX as u64,
            value_bytes: 1 << 20,
            frame_bytes: limits::FRAME_BYTES_MAX as u64,
            batch_bytes: limits::BATCH_BYTES_TARGET as u64,
            unsettled: 1024,
        },
        memory_only: false,
    }
}

#[tokio::test]
async fn a_hello_is_these_bytes() {
    let mut bytes = Vec::new();
    send(
        &mut FrameWriter::new(&mut bytes),
        FrameKind::Hello,
        &hello(),
    )
    .await
    .unwrap();
    let (header, body) = bytes.split_at(HEADER_BYTES);
    assert_eq!(header[..16], *b"\x25\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0");
    let mut expected = b"rhash\r\n\0\x02\0\0\0\x01\x05".to_vec();
    expected.extend_from_slice(&[0xab; 16]);
    expected.extend_from_slice(b"\x01t\x04test");
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_welcome_and_a_refusal_are_these_bytes() {
    let mut bytes = Vec::new();
    send_welcome(&mut FrameWriter::new(&mut bytes), &welcome())
        .await
        .unwrap();
    let mut expected = b"rhash\r\n\0\x02\0\0\0\x0brhash 0.1.0\x05".to_vec();
    expected.extend_from_slice(&[0xcd; 16]);
    expected.extend_from_slice(b"\x01\xfb\x60\xea");
    expected
        .extend_from_slice(b"\xfc\0\0\x01\0\xfc\0\0\x10\0\xfc\0\0\x04\0\xfc\0\0\x03\0\xfb\0\x04");
    expected.push(0);
    assert_eq!(bytes[HEADER_BYTES..], expected);

    let mut bytes = Vec::new();
    let refusal = WireError {
        code: ErrorCode::SessionExpired,
        text: "gone".into(),
    };
    send_refusal(&mut FrameWriter::new(&mut bytes), &refusal)
        .await
        .unwrap();
    assert_eq!(bytes[HEADER_BYTES..], *b"rhash\r\n\0\x02\0\0\0\x08\x04gone");
}

#[tokio::test]
async fn a_client_is_welcomed() {
    let (client, server) = duplex(4096);
    let (from_server, to_server) = tokio::io::split(client);
    let (from_client, to_client) = tokio::io::split(server);
    let client = async {
        let (mut reader, mut writer) = (FrameReader::new(from_server), FrameWriter::new(to_server));
        greet(&mut reader, &mut writer, &hello()).await.unwrap()
    };
    let server = async {
        let (mut reader, mut writer) = (FrameReader::new(from_client), FrameWriter::new(to_client));
        assert_eq!(receive_hello(&mut reader).await.unwrap(), hello());
        send_welcome(&mut writer, &welcome()).await.unwrap();
    };
    let (greeting, ()) = tokio::join!(client, server);
    assert!(matches!(greeting, Greeting::Welcome(got) if got == welcome()));
}

async fn server_error(bytes: &[u8]) -> HandshakeError {
    receive_hello(&mut FrameReader::new(bytes))
        .await
        .unwrap_err()
}

fn framed(kind: FrameKind, body: &[u8]) -> Vec<u8> {
    let mut bytes = FrameHead::whole(kind, 0).header(body).unwrap().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

#[tokio::test]
async fn strangers_are_told_apart() {
    let http = server_error(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n").await;
    assert!(
        matches!(http, HandshakeError::NotRhash(Some(_))),
        "{http:?}"
    );
    assert_eq!(
        http.to_string(),
        "the peer does not speak the rhash protocol"
    );
    let short = server_error(b"hi\n").await;
    assert!(
        matches!(short, HandshakeError::NotRhash(Some(_))),
        "{short:?}"
    );
    let no_magic = server_error(&framed(FrameKind::Hello, b"hello, world")).await;
    assert!(
        matches!(no_magic, HandshakeError::NotRhash(None)),
        "{no_magic:?}"
    );
    let request = server_error(&framed(FrameKind::Request, &MAGIC)).await;
    assert!(
        matches!(request, HandshakeError::NotRhash(None)),
        "{request:?}"
    );
    assert!(matches!(server_error(b"").await, HandshakeError::Closed));
}

#[tokio::test]
async fn another_version_is_named_before_its_hello_is_decoded() {
    let mut body = MAGIC.to_vec();
    body.extend_from_slice(&9u32.to_le_bytes());
    body.extend_from_slice(b"\xff\xff a form of the future");
    let error = server_error(&framed(FrameKind::Hello, &body)).await;
    assert_eq!(
        error.to_string(),
        "the peer speaks version 9 of the rhash protocol, this side version 2"
    );
}

#[tokio::test]
async fn a_refusal_of_another_version_can_be_read() {
    let mut body = MAGIC.to_vec();
    body.extend_from_slice(&9u32.to_le_bytes());
    body.extend_from_slice(b"\x0f\x03new");
    let (mut sink, _keep) = duplex(4096);
    let bytes = framed(FrameKind::Refusal, &body);
    let (mut reader, mut writer) = (FrameReader::new(&bytes[..]), FrameWriter::new(&mut sink));
    let greeting = greet(&mut reader, &mut writer, &hello()).await;
    let Greeting::Refusal(refusal) = greeting.unwrap() else {
        panic!("not a refusal")
    };
    assert_eq!(
        refusal,
        WireError {
            code: ErrorCode::WrongVersion,
            text: "new".into()
        }
    );
}

#[tokio::test]
async fn a_malformed_hello_and_one_over_the_limit_are_refused() {
    let mut body = MAGIC.to_vec();
    body.extend_from_slice(&PROTOCOL_VERSION.to_le_bytes());
    body.extend_from_slice(b"\x02");
    let error = server_error(&framed(FrameKind::Hello, &body)).await;
    assert!(matches!(error, HandshakeError::Malformed(_)), "{error:?}");

    let long = Hello {
        session: None,
        token: "x".repeat(HELLO_BYTES_MAX),
        client: String::new(),
    };
    let (mut sink, _keep) = duplex(64);
    let (mut reader, mut writer) = (FrameReader::new(&b""[..]), FrameWriter::new(&mut sink));
    let error = greet(&mut reader, &mut writer, &long).await;
    assert!(matches!(error, Err(HandshakeError::TooLong { .. })));

    let error = server_error(&framed(FrameKind::Hello, &[0; HELLO_BYTES_MAX + 1])).await;
    assert!(
        matches!(error, HandshakeError::NotRhash(Some(_))),
        "{error:?}"
    );
}

// A refusal beyond the limit was once not sent at all.
#[tokio::test]
async fn the_text_of_a_refusal_is_cut_to_what_can_be_sent() {
    let refusal = WireError {
        code: ErrorCode::Busy,
        text: "\u{e4}".repeat(HELLO_BYTES_MAX),
    };
    let mut bytes = Vec::new();
    send_refusal(&mut FrameWriter::new(&mut bytes), &refusal)
        .await
        .unwrap();
    let mut reader = FrameReader::new(&bytes[..]);
    let sent = decode_refusal(reader.next().await.unwrap().unwrap()).unwrap();
    let whole_characters = limits::ERROR_TEXT_BYTES_MAX / 2 * 2;
    assert_eq!(sent.text.len(), whole_characters);
    assert!(refusal.text.starts_with(&sent.text));

    let mut body = Vec::new();
    codec::encode(&Response::Error(refusal), &mut body).unwrap();
    let answer: Response<'_> = codec::decode(&body).unwrap();
    assert_eq!(answer, Response::Error(sent), "and so is that of an answer");
}

#[tokio::test]
async fn a_stranger_gets_no_more_room_than_a_hello_needs() {
    let (mut flood, source) = duplex(64 * 1024);
    flood.write_all(&[1; 64 * 1024]).await.unwrap();
    let mut reader = FrameReader::new(source);
    assert!(receive_hello(&mut reader).await.is_err());
    assert!(reader.unread().len() <= HELLO_BYTES_MAX);
}
