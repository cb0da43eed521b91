//! The gRPC server: three services behind one request layer, on one unix socket.

mod deadline;
mod incoming;
mod layer;

use std::future::Future;

use proto::davit::v1::images_server::ImagesServer;
use proto::runtime::v1::image_service_server::ImageServiceServer;
use proto::runtime::v1::runtime_service_server::RuntimeServiceServer;
use tokio::net::UnixListener;
use tonic::transport::Server;

use crate::davit::DavitImages;
use crate::image::Images;
use crate::node::Node;
use crate::runtime::Runtime;

/// tonic's 4 MiB are less than CRI's clients take (16 MiB): a busy node's list or an ExecSync's output is bigger.
const MESSAGE_LIMIT: usize = 64 << 20;
/// Clients multiplex everything over one connection; the default window of 64 KiB would make big answers crawl.
const STREAM_WINDOW: u32 = 1 << 20;

/// Serves until `stop`, then until the connections have closed.
pub(crate) async fn serve(
    listener: UnixListener,
    node: Node,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let runtime = RuntimeServiceServer::new(Runtime(node.clone()));
    let images = ImageServiceServer::new(Images(node.clone()));
    let davit = ImagesServer::new(DavitImages(node));
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW)
        .layer(layer::Requests)
        .layer(deadline::Deadlines)
        .add_service(
            runtime
                .max_decoding_message_size(MESSAGE_LIMIT)
                .max_encoding_message_size(MESSAGE_LIMIT),
        )
        .add_service(
            images
                .max_decoding_message_size(MESSAGE_LIMIT)
                .max_encoding_message_size(MESSAGE_LIMIT),
        )
        .add_service(
            davit
                .max_decoding_message_size(MESSAGE_LIMIT)
                .max_encoding_message_size(MESSAGE_LIMIT),
        )
        .serve_with_incoming_shutdown(incoming::connections(listener), stop)
        .await
}
