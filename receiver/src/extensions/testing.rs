//! A client of the extensions' servers, for their tests.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// All that is answered to a GET with these headers, each of which ends its line.
pub(super) async fn answer(address: &str, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it accepts");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("answered");
    text
}

/// The status of the answer to a GET, and its body.
pub(super) async fn ask(address: &str, path: &str) -> (u16, String) {
    let text = answer(address, path, "").await;
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    (head[9..12].parse().expect("a status"), body.to_owned())
}
