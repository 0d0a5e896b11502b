//! The connection of a client, and snappy on it, of which the library knows nothing: whole messages are
//! compressed after it has written them, and answers before it reads them.

use std::{
    error::Error,
    future::Future,
    io::Read as _,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::http::{HeaderValue, Request, Response};
use tonic::{body::Body, transport::Channel};
use tower_service::Service;

use crate::exporters::otlp::compression::snappy_framed;

/// An answer that is larger than the library itself would take is none.
const MAX_ANSWER: usize = 4 << 20;
const SNAPPY: HeaderValue = HeaderValue::from_static("snappy");
/// Before each message: whether it is compressed, and its length.
const HEAD: usize = 5;

/// A connection.
#[derive(Clone)]
pub struct Wire {
    pub channel: Channel,
    pub snappy: bool,
}

type Failure = Box<dyn Error + Send + Sync>;

impl Service<Request<Body>> for Wire {
    type Response = Response<Body>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Failure>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.channel.poll_ready(cx).map_err(Failure::from)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // What is ready is this one, not its copy.
        let next = self.channel.clone();
        let channel = std::mem::replace(&mut self.channel, next);
        match self.snappy {
            true => Box::pin(compressed(channel, request)),
            false => {
                let mut channel = channel;
                let answer = channel.call(request);
                Box::pin(async move { Ok(answer.await?) })
            }
        }
    }
}

async fn compressed(
    mut channel: Channel,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let (mut parts, body) = request.into_parts();
    let plain = body.collect().await?.to_bytes();
    parts.headers.insert(ENCODING, SNAPPY);
    parts.headers.insert(ACCEPT, SNAPPY);
    let body = Body::new(Full::new(messages(&plain, compress)?));
    let response = channel.call(Request::from_parts(parts, body)).await?;
    let (mut parts, body) = response.into_parts();
    if parts.headers.get(ENCODING) != Some(&SNAPPY) {
        return Ok(Response::from_parts(parts, body));
    }
    parts.headers.remove(ENCODING);
    let collected = Limited::new(body, MAX_ANSWER).collect().await?;
    let trailers = collected.trailers().cloned().map(Ok);
    let plain = messages(&collected.to_bytes(), decompress)?;
    let body = Full::new(plain).with_trailers(async move { trailers });
    Ok(Response::from_parts(parts, Body::new(body)))
}

const ENCODING: &str = "grpc-encoding";
const ACCEPT: &str = "grpc-accept-encoding";

/// A message, and whether it is compressed now.
type Changed = Result<(bool, Vec<u8>), Failure>;

/// Each message, changed; the first argument is whether it is compressed.
fn messages(mut bytes: &[u8], change: fn(bool, &[u8]) -> Changed) -> Result<Bytes, Failure> {
    let mut changed = BytesMut::with_capacity(bytes.len());
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_first_chunk::<HEAD>().ok_or("a message is cut off")?;
        let [flag, length @ ..] = *head;
        let length = u32::from_be_bytes(length) as usize;
        let (message, rest) = rest.split_at_checked(length).ok_or("a message is cut off")?;
        let (flag, message) = change(flag == 1, message)?;
        changed.put_u8(flag.into());
        changed.put_u32(u32::try_from(message.len())?);
        changed.put_slice(&message);
        bytes = rest;
    }
    Ok(changed.freeze())
}

fn compress(_: bool, message: &[u8]) -> Changed {
    Ok((true, snappy_framed(message)?))
}

fn decompress(compressed: bool, message: &[u8]) -> Changed {
    if !compressed {
        return Ok((false, message.to_vec()));
    }
    let mut plain = Vec::new();
    let limit = MAX_ANSWER as u64 + 1;
    snap::read::FrameDecoder::new(message).take(limit).read_to_end(&mut plain)?;
    if plain.len() > MAX_ANSWER {
        return Err("an answer is too large".into());
    }
    Ok((false, plain))
}

#[cfg(test)]
mod tests {
    use hyper::{body::Incoming, http::HeaderMap, server::conn::http2, service::service_fn};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use opentelemetry_proto::tonic::collector::logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
        logs_service_client::LogsServiceClient,
    };
    use prost::Message as _;
    use tokio::net::TcpListener;
    use tonic::transport::Endpoint;

    use super::*;
    use crate::{batch::Batch, exporters::otlp::sample};

    /// Answers to what it was sent in snappy that it rejects as many records as came.
    async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        assert_eq!(request.headers()[ENCODING], "snappy");
        assert_eq!(request.headers()["te"], "trailers");
        let body = request.into_body().collect().await?.to_bytes();
        assert_eq!(body[0], 1, "the message is marked as compressed");
        let plain = messages(&body, decompress)?;
        let request = ExportLogsServiceRequest::decode(&plain[HEAD..])?;
        let rejected_log_records = Batch::Logs(request).items() as i64;
        let partial_success =
            Some(ExportLogsPartialSuccess { rejected_log_records, ..Default::default() });
        let answer = ExportLogsServiceResponse { partial_success }.encode_to_vec();
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(answer.len() as u32);
        framed.put_slice(&answer);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let body = Full::new(messages(&framed, compress)?)
            .with_trailers(async move { Some(Ok(trailers)) });
        let response = Response::builder()
            .header("content-type", "application/grpc")
            .header(ENCODING, "snappy");
        Ok(response.body(Body::new(body))?)
    }

    #[tokio::test]
    async fn requests_and_answers_are_compressed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let server = http2::Builder::new(TokioExecutor::new());
            server.serve_connection(TokioIo::new(stream), service_fn(answer)).await
        });
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let mut client =
            LogsServiceClient::new(Wire { channel: endpoint.connect_lazy(), snappy: true });
        let [_, Batch::Logs(logs), _] = sample::all() else { unreachable!() };
        for _ in 0..2 {
            let answer = client.export(logs.clone()).await.unwrap().into_inner();
            assert_eq!(answer.partial_success.map(|p| p.rejected_log_records), Some(2));
        }
    }

    #[test]
    fn what_is_cut_off_or_swells_is_refused() {
        let whole = messages(&[0, 0, 0, 0, 2, 7, 7], compress).unwrap();
        assert_eq!(&messages(&whole, decompress).unwrap()[..], [0, 0, 0, 0, 2, 7, 7]);
        assert!(messages(&whole[..whole.len() - 1], decompress).is_err());
        assert!(messages(&whole[..3], decompress).is_err());
        let bomb = compress(false, &vec![0; MAX_ANSWER + 1]).unwrap().1;
        assert!(decompress(true, &bomb).is_err());
    }
}
