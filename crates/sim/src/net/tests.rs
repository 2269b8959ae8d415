use futures::FutureExt as _;
use runtime::Network as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const SERVER: HostId = 11;
const CLIENT: HostId = 1;

struct Ends {
    net: Net,
    now: Duration,
    listener: runtime::Listener,
}

impl Ends {
    fn new() -> Self {
        let net = Net::new(Dice::new(1));
        let server = HostNetwork {
            net: net.clone(),
            host: SERVER,
        };
        let bound = server.bind(address(SERVER, 80)).now_or_never();
        Self {
            net,
            now: Duration::ZERO,
            listener: bound.unwrap().unwrap(),
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += Duration::from_millis(1);
            self.net.deliver(self.now);
        }
    }

    fn dial(&mut self) -> Connection {
        let client = HostNetwork {
            net: self.net.clone(),
            host: CLIENT,
        };
        let dialling = client.connect(address(SERVER, 80).to_string());
        self.pass(Duration::from_millis(5));
        dialling.now_or_never().unwrap().unwrap()
    }

    fn accept(&mut self) -> Connection {
        self.listener.accept().now_or_never().unwrap().unwrap()
    }
}

fn send(connection: &mut Connection, text: &str) {
    let sent = connection.write_all(text.as_bytes()).now_or_never();
    sent.unwrap().unwrap();
}

/// What can be read now; `None` when there is nothing yet.
fn read(connection: &mut Connection) -> Option<String> {
    let mut buffer = [0; 64];
    let count = connection.read(&mut buffer).now_or_never()?.unwrap();
    Some(String::from_utf8_lossy(&buffer[..count]).into_owned())
}

#[test]
fn what_was_sent_over_a_connection_is_read_again_from_another_one() {
    let mut ends = Ends::new();
    let mut near = ends.dial();
    let mut far = ends.accept();
    send(&mut near, "one ");
    ends.pass(Duration::from_millis(5));
    assert_eq!(read(&mut far).as_deref(), Some("one "));
    assert_eq!(ends.net.replay(1), None, "it is too young");
    ends.pass(Duration::from_secs(2));
    send(&mut near, "two");
    drop((near, far));
    ends.pass(Duration::from_secs(60));

    let replay = ends.net.replay(4).unwrap();
    assert_eq!((replay.from, replay.to, replay.bytes), (CLIENT, SERVER, 7));
    assert_eq!(replay.until.saturating_sub(replay.began).as_secs(), 2);
    let mut far = ends.accept();
    assert!(!ends.net.was_read(replay.id));
    ends.pass(Duration::from_millis(5));
    assert_eq!(read(&mut far).as_deref(), Some("one "));
    assert!(ends.net.was_read(replay.id));
    // Its pace is four times that of the first time; the answers go nowhere.
    send(&mut far, "an answer");
    ends.pass(Duration::from_millis(400));
    assert_eq!(read(&mut far), None);
    ends.pass(Duration::from_millis(200));
    assert_eq!(read(&mut far).as_deref(), Some("two"));
    ends.pass(Duration::from_secs(4));
    assert_eq!(read(&mut far).as_deref(), Some(""), "it ends");
}

#[test]
fn answers_that_nobody_reads_do_not_hold_up_what_is_sent_again() {
    let mut ends = Ends::new();
    let mut near = ends.dial();
    send(&mut near, "question");
    ends.pass(Duration::from_secs(2));
    drop(ends.accept());
    ends.net.replay(1).unwrap();
    let mut far = ends.accept();
    let answer = "x".repeat(pipe::WINDOW_BYTES);
    for _ in 0..3 {
        send(&mut far, &answer);
        ends.pass(Duration::from_millis(5));
    }
}

#[test]
fn a_stream_is_kept_without_a_gap() {
    let mut ends = Ends::new();
    let mut near = ends.dial();
    let mut far = ends.accept();
    let large = "x".repeat(100 << 10);
    for _ in 0..3 {
        send(&mut near, &large);
        ends.pass(Duration::from_millis(5));
        while read(&mut far).is_some() {}
    }
    send(&mut near, "the end");
    ends.pass(Duration::from_secs(2));
    assert_eq!(ends.net.replay(1).unwrap().bytes, 200 << 10);
}

#[test]
fn a_cut_over_which_nobody_sends_holds_nothing_up() {
    let mut ends = Ends::new();
    let mut near = ends.dial();
    let (there, back) = ((CLIENT, SERVER), (SERVER, CLIENT));
    ends.net.cut(CLIENT, SERVER, true);
    ends.net.cut(SERVER, CLIENT, true);
    ends.pass(Duration::from_secs(2));
    assert_eq!(ends.net.hindered(&[there, back]), 0);
    send(&mut near, "held");
    ends.pass(Duration::from_secs(1));
    assert!(ends.net.hindered(&[there]) > 0);
    assert_eq!(ends.net.hindered(&[back]), 0);
}
