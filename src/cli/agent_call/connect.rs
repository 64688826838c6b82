//! Opening the TCP connection, patiently: network plugins program a pod after it has started, so the first attempts of
//! a young pod can be refused by policies that will let it through a moment later.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use tokio::time::{Instant, sleep};
use tower::{BoxError, Service};

/// How long attempts are repeated.
pub const PATIENCE: Duration = Duration::from_secs(10);

const BETWEEN: Duration = Duration::from_millis(250);

/// Repeats a connector's attempts until one succeeds or the patience is over. Nothing was sent when a TCP connection
/// could not be opened, so nothing can happen twice.
#[derive(Clone, Debug)]
pub struct Patient<C> {
    inner: C,
    patience: Duration,
}

impl<C> Patient<C> {
    /// Wraps a connector.
    pub fn new(inner: C, patience: Duration) -> Self {
        Self { inner, patience }
    }
}

impl<C> Service<Uri> for Patient<C>
where
    C: Service<Uri> + Clone + Send + 'static,
    C::Response: Send,
    C::Error: Into<BoxError> + Send,
    C::Future: Send,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let mut inner = self.inner.clone();
        let deadline = Instant::now() + self.patience;
        Box::pin(async move {
            loop {
                std::future::poll_fn(|context| inner.poll_ready(context))
                    .await
                    .map_err(Into::into)?;
                match inner.call(uri.clone()).await {
                    Ok(connection) => return Ok(connection),
                    Err(error) if Instant::now() + BETWEEN >= deadline => return Err(error.into()),
                    Err(_) => sleep(BETWEEN).await,
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;

    fn failing(
        times: u32,
    ) -> (
        impl Service<Uri, Response = u32, Error = BoxError, Future: Send> + Clone + Send,
        Arc<AtomicU32>,
    ) {
        let attempts = Arc::new(AtomicU32::new(0));
        let counter = attempts.clone();
        let service = tower::service_fn(move |_: Uri| {
            let attempt = counter.fetch_add(1, Ordering::SeqCst) + 1;
            async move {
                if attempt > times {
                    Ok(attempt)
                } else {
                    Err(BoxError::from("refused"))
                }
            }
        });
        (service, attempts)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_refused_at_first_is_tried_again() {
        let (service, _) = failing(3);
        let answer = Patient::new(service, PATIENCE)
            .call(Uri::from_static("https://crm.acme.svc:8443"))
            .await;
        assert_eq!(answer.unwrap(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_with_the_last_refusal() {
        let (service, attempts) = failing(u32::MAX);
        let answer = Patient::new(service, Duration::from_secs(1))
            .call(Uri::from_static("https://crm.acme.svc:8443"))
            .await;
        assert_eq!(answer.unwrap_err().to_string(), "refused");
        assert_eq!(attempts.load(Ordering::SeqCst), 4);
    }
}
