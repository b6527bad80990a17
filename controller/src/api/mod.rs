//! Ironic's REST API, `/v1`: one file per resource. It parses requests into domain types, asks the conductor, renders answers.
//!
//! It changes nothing itself and calls no driver. Source: Ironic 39's API reference, up to microversion 1.115.

mod answer;
mod drivers;
pub mod json;
mod node_view;
mod nodes;
mod ports;
mod ramdisk;
mod request;
mod root;
pub mod serve;
mod states;
mod versions;

use crate::conductor::Conductor;
use answer::{Answer, Problem};
use bytes::Bytes;
use http::{HeaderValue, Method, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use request::Request;
use std::net::IpAddr;
use std::sync::Arc;

/// The API's state, shared by all connections.
pub struct Api {
    conductor: Arc<Conductor>,
    /// The base of all links, without a slash at the end; the request's host where it is not set.
    public_url: Option<String>,
}

impl Api {
    pub fn new(conductor: Arc<Conductor>, public_url: Option<String>) -> Arc<Api> {
        Arc::new(Api { conductor, public_url })
    }

    /// Answers one request.
    pub async fn handle(&self, request: hyper::Request<Incoming>, peer: IpAddr) -> Response<Full<Bytes>> {
        let (version, versions) = versions::negotiate(request.headers());
        let method = request.method().clone();
        let path: String = request.uri().path().chars().take(200).collect();
        let result = match version {
            Ok(version) => match Request::read(request, version, peer, self.public_url.as_deref()).await {
                Ok(request) => self.dispatch(&request).await,
                Err(problem) => Err(problem),
            },
            Err(problem) => Err(problem),
        };
        let mut response = match result {
            Ok(answer) => answer.into_response(),
            Err(problem) => {
                if problem.status.is_server_error() {
                    tracing::error!(%method, %path, status = problem.status.as_u16(), text = %problem.text, "request failed");
                } else {
                    tracing::debug!(%method, %path, status = problem.status.as_u16(), text = %problem.text, "request refused");
                }
                problem.into_response()
            }
        };
        let id = format!("req-{}", uuid::Uuid::new_v4());
        let headers = response.headers_mut();
        for (name, value) in versions {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        if let Ok(value) = HeaderValue::from_str(&id) {
            headers.insert("openstack-request-id", value.clone());
            headers.insert("x-openstack-request-id", value);
        }
        response
    }

    async fn dispatch(&self, r: &Request) -> Result<Answer, Problem> {
        let segments: Vec<&str> = r.segments.iter().map(String::as_str).collect();
        // `/nodes` is `/v1/nodes`; the root stays the root.
        let segments = match segments.split_first() {
            None => return root::root(r),
            Some((&"v1", rest)) => rest.to_vec(),
            Some(_) => segments.clone(),
        };
        let get = matches!(r.method, Method::GET | Method::HEAD);
        match segments.as_slice() {
            [] if get => root::v1(r),
            [] => Err(Problem::method_not_allowed("GET, HEAD")),
            ["lookup", ..] | ["heartbeat", ..] | ["continue_inspection"] => self.ramdisk(r, &segments).await,
            ["nodes", rest @ ..] => self.nodes(r, rest).await,
            ["ports", rest @ ..] => self.ports(r, rest).await,
            ["drivers", rest @ ..] => self.drivers(r, rest).await,
            ["conductors", rest @ ..] => self.conductors(r, rest),
            _ => Err(Problem::not_found_path()),
        }
    }
}
