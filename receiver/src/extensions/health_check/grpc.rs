//! Version 2 as gRPC's own health service: a service is a pipeline, and no name is the whole agent.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status as Refusal};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_server::Health,
};

use super::Asked;
use crate::status::Status;

/// How often it is looked whether a status that is watched has changed.
const LOOK: Duration = Duration::from_millis(100);

/// Answers.
#[derive(Clone)]
pub(super) struct Checks(pub(super) Arc<Asked>);

impl Checks {
    /// How a service is; `None` if there is no such pipeline.
    fn serving(&self, service: &str) -> Option<ServingStatus> {
        let event = self.0.of(Some(service).filter(|name| !name.is_empty()))?;
        let well = event.is_some_and(|event| {
            self.0.healthy(&event) && matches!(event.status, Status::Ok | Status::RecoverableError)
        });
        Some(if well { ServingStatus::Serving } else { ServingStatus::NotServing })
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Refusal>> + Send>>;

#[tonic::async_trait]
impl Health for Checks {
    type WatchStream = Answers;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Refusal> {
        let status = self.serving(&request.into_inner().service);
        let status = status.ok_or_else(|| Refusal::not_found("Service not found."))?;
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Answers>, Refusal> {
        let service = request.into_inner().service;
        let (answers, stream) = mpsc::channel(1);
        let checks = self.clone();
        tokio::spawn(async move {
            let mut last = None;
            while !checks.0.stop.is_cancelled() {
                let status = checks.serving(&service).unwrap_or(ServingStatus::ServiceUnknown);
                if last.replace(status) != Some(status) {
                    let answer = HealthCheckResponse { status: status.into() };
                    if answers.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = answers.closed() => return,
                    () = checks.0.stop.cancelled() => {}
                }
            }
            // Who watches knows by that that it has to look elsewhere.
            let _ = answers.send(Err(Refusal::cancelled("Server shutting down."))).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}
