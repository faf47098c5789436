//! Many refusals on one HTTP/2 connection whose client sends on until the answers have come, written out as frames: each
//! refusal is an answer of its own, and the connection lives.

use super::grpc::TRACES;
use super::*;

/// Calls at a time: more than streams that may end within a second by an answer while they still bring something.
const CALLS: u32 = 120;
/// Frames that each call still brings, and bytes in one: altogether more frames than may come for forgotten streams, and
/// less than the window of a connection.
const FRAMES: u8 = 30;
const FRAME_BYTES: u16 = 256;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Headers of an export, not compressed.
fn headers() -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    // POST and http of the static table, then its names of path, authority and content type
    let mut block = vec![0x83, 0x86, 0x04];
    block.extend(text(TRACES));
    block.push(0x01);
    block.extend(text("x"));
    block.extend([0x0f, 0x10]);
    block.extend(text("application/grpc"));
    block
}

async fn next(socket: &mut TcpStream) -> (u8, u8, Vec<u8>) {
    let mut head = [0; 9];
    socket.read_exact(&mut head).await.unwrap();
    let [a, b, c, kind, flags, ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    socket.read_exact(&mut payload).await.unwrap();
    (kind, flags, payload)
}

#[tokio::test]
async fn a_connection_outlives_refusals_of_calls_that_still_send() {
    let config = DoorConfig {
        budget_bytes: 64 * KIB,
        ..DoorConfig::default()
    };
    let rig = Rig::new(config, || Ok(Accepted::default())).await;
    let mut full = rig.door.budget.charge().unwrap();
    full.grow(60 * KIB).unwrap();
    let mut socket = TcpStream::connect(rig.address).await.unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    socket.write_all(preface).await.unwrap();
    socket.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();

    let streams = || (0..CALLS).map(|call| 2 * call + 1);
    let message_bytes = u32::from(FRAMES) * u32::from(FRAME_BYTES);
    let prefix = [&[0][..], &message_bytes.to_be_bytes()].concat();
    for stream in streams() {
        socket
            .write_all(&frame(HEADERS, END_HEADERS, stream, &headers()))
            .await
            .unwrap();
        socket.write_all(&frame(DATA, 0, stream, &prefix)).await.unwrap();
    }
    let busy = || rig.door.counters().shed_requests.load(Relaxed);
    while busy() < u64::from(CALLS) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // time for answers that come too early
    tokio::time::sleep(Duration::from_millis(100)).await;
    for n in 1..=FRAMES {
        for stream in streams() {
            let end = if n == FRAMES { END_STREAM } else { 0 };
            let sent = frame(DATA, end, stream, &[0; FRAME_BYTES as usize]);
            socket.write_all(&sent).await.unwrap();
        }
    }
    let mut answers = 0;
    while answers < CALLS {
        let (kind, flags, payload) = next(&mut socket).await;
        assert_ne!(kind, GO_AWAY, "{:?}", String::from_utf8_lossy(&payload));
        answers += u32::from(kind == HEADERS && flags & END_STREAM != 0);
    }
}
