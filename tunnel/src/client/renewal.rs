//! Certificates: the invite's is exchanged for one of this edge's own, and that is renewed before it expires.

use super::dialer::Dialer;
use super::{RENEWAL_TIMEOUT, file_work};
use crate::handle::{EndCause, TunnelHandle};

impl Dialer {
    /// Exchanges the invite over a tunnel that is good for nothing else, and is therefore not published. True when it worked.
    pub(super) async fn exchange(&self, tunnel: &TunnelHandle) -> bool {
        let exchanged = match self.renew(tunnel).await {
            Ok(true) => true,
            Ok(false) => {
                self.note(Some(
                    "the line was lost before the invite was exchanged".to_owned(),
                ));
                false
            }
            Err(error) => {
                tracing::error!(%error, "the invite could not be exchanged");
                self.note(Some(format!("the invite could not be exchanged: {error}")));
                false
            }
        };
        tunnel.close(EndCause::Closed("the invite's link is done".to_owned()));
        tunnel.ended().await;
        exchanged
    }

    pub(super) async fn renew(&self, tunnel: &TunnelHandle) -> Result<bool, String> {
        let pools = &self.environment.pools;
        let identity = self.identity.clone();
        let request = file_work(
            pools,
            "begin renewal",
            Box::new(move || identity.begin_renewal()),
        )
        .await??;
        let Some(request) = request else {
            return Ok(false);
        };
        let answer = tokio::time::timeout(RENEWAL_TIMEOUT, tunnel.renew(request)).await;
        let Some(answer) = answer.map_err(|_| "the server does not answer".to_owned())? else {
            return Ok(false);
        };
        let identity = self.identity.clone();
        file_work(
            pools,
            "finish renewal",
            Box::new(move || identity.finish_renewal(answer)),
        )
        .await?
    }
}
