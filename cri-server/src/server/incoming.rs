//! Accepting connections, also when descriptors run out.

use std::io;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};

/// An error of accept(2), such as EMFILE, is here to stay for a moment: the server would try again at once and spin.
const PAUSE: Duration = Duration::from_millis(100);

/// The connections of a listener. Errors are logged and waited out, never passed on.
pub(super) fn connections(listener: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> {
    UnixListenerStream::new(listener).then(|accepted| async {
        if let Err(error) = &accepted {
            tracing::error!(%error, "accept a connection on the CRI socket");
            tokio::time::sleep(PAUSE).await;
        }
        accepted
    })
}
