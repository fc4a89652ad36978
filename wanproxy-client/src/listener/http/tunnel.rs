//! CONNECT: a stream to the target, relayed like one of any other listener.

use std::sync::Arc;

use codec::frame::Target;
use edge::log::Ended;
use edge::pace::paced;
use edge::relay::{relay, send_preface};
use hyper::Request;
use hyper::body::Incoming;
use hyper::upgrade::{self, OnUpgrade};
use hyper_util::rt::TokioIo;
use tunnel::handle::TunnelHandle;
use tunnel::stream::StreamHandle;

use super::Proxy;
use super::answer::{Answer, connected, refusal};
use super::socket::SharedSocket;

impl Proxy {
    /// Answers when the target has, so that 200 means a connection.
    pub(super) async fn connect(
        self: Arc<Self>,
        target: Target,
        mut request: Request<Incoming>,
    ) -> Answer {
        let Some((tunnel, mut stream)) = self.uplink.open(&self.service, &target).await else {
            return refusal::no_tunnel();
        };
        if let Err(reason) = stream.opened().await {
            tracing::info!(service = self.service.name, application = %self.introduction.application, target_address = %target, ?reason, "stream refused");
            return refusal::of(reason);
        }
        let upgrade = upgrade::on(&mut request);
        let carrying = self.uplink.carrying();
        tokio::spawn(async move {
            let _carrying = carrying;
            self.carry(upgrade, target, tunnel, stream).await;
        });
        connected()
    }

    async fn carry(
        &self,
        upgrade: OnUpgrade,
        target: Target,
        tunnel: TunnelHandle,
        stream: StreamHandle,
    ) {
        // Dropping the stream tells the other edge.
        let Ok(upgraded) = upgrade.await else { return };
        let Ok(parts) = upgraded.downcast::<TokioIo<SharedSocket>>() else {
            tracing::error!("a CONNECT was not made over the socket that it came by");
            return;
        };
        let socket = parts.io.into_inner().with_early(parts.read_buf);
        let end = stream.end();
        let (send, receive) = stream.split();
        let (mut send, receive) = paced(send, receive, std::slice::from_ref(&self.service.pace));
        send_preface(&mut send, self.introduction.preface()).await;
        let report = relay(socket, send, receive).await;
        let ended = Ended {
            service: &self.service.name,
            application: self.introduction.application,
            target: &target,
            tunnel: &tunnel,
            started: self.started,
        };
        ended.log(end, &report).await;
    }
}
