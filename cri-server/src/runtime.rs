//! CRI's RuntimeService: one row per RPC, in the order of `api.proto`. What a row names converts, calls the engine and
//! maps the error; a row with a text answers UNIMPLEMENTED by that name.

mod containers;
mod exec;
mod info;
mod pods;

use proto::runtime::v1::runtime_service_server::RuntimeService;
use proto::runtime::v1::*;
use tonic::{Request, Response, Status};

use crate::node::Node;
use crate::status::unsupported;

/// The service over a node's engine.
#[derive(Debug, Clone)]
pub(crate) struct Runtime(pub(crate) Node);

/// The stream of an RPC that never gets so far.
type NoStream<T> = tokio_stream::Empty<Result<T, Status>>;

macro_rules! runtime_service {
    (
        supported {
            $( $rpc:ident($request:ty) -> $response:ty = $handler:path; )*
        }
        unsupported {
            $( $other:ident($other_request:ty) -> $other_response:ty = $name:literal; )*
        }
        unsupported_streams {
            $( $stream:ident($stream_request:ty) -> $associated:ident<$item:ty> = $stream_name:literal; )*
        }
    ) => {
        #[tonic::async_trait]
        impl RuntimeService for Runtime {
            $(
                async fn $rpc(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                    $handler(&self.0, request.into_inner()).await.map(Response::new)
                }
            )*
            $(
                async fn $other(&self, _: Request<$other_request>) -> Result<Response<$other_response>, Status> {
                    Err(unsupported($name))
                }
            )*
            $(
                type $associated = NoStream<$item>;
                async fn $stream(&self, _: Request<$stream_request>) -> Result<Response<NoStream<$item>>, Status> {
                    Err(unsupported($stream_name))
                }
            )*
        }
    };
}

runtime_service! {
    supported {
        version(VersionRequest) -> VersionResponse = info::version;
        run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse = pods::run;
        stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse = pods::stop;
        remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse = pods::remove;
        pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse = pods::status;
        list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse = pods::list;
        create_container(CreateContainerRequest) -> CreateContainerResponse = containers::create;
        start_container(StartContainerRequest) -> StartContainerResponse = containers::start;
        stop_container(StopContainerRequest) -> StopContainerResponse = containers::stop;
        remove_container(RemoveContainerRequest) -> RemoveContainerResponse = containers::remove;
        list_containers(ListContainersRequest) -> ListContainersResponse = containers::list;
        container_status(ContainerStatusRequest) -> ContainerStatusResponse = containers::status;
        update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse = containers::update;
        reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse = containers::reopen_log;
        exec_sync(ExecSyncRequest) -> ExecSyncResponse = exec::sync;
        update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse = info::update_runtime_config;
        status(StatusRequest) -> StatusResponse = info::status;
        runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse = info::runtime_config;
    }
    unsupported {
        checkpoint_pod(CheckpointPodRequest) -> CheckpointPodResponse = "CheckpointPod";
        restore_pod(RestorePodRequest) -> RestorePodResponse = "RestorePod";
        exec(ExecRequest) -> ExecResponse = "Exec";
        attach(AttachRequest) -> AttachResponse = "Attach";
        port_forward(PortForwardRequest) -> PortForwardResponse = "PortForward";
        container_stats(ContainerStatsRequest) -> ContainerStatsResponse = "ContainerStats";
        list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse = "ListContainerStats";
        pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse = "PodSandboxStats";
        list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse = "ListPodSandboxStats";
        checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse = "CheckpointContainer";
        list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse = "ListMetricDescriptors";
        list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse = "ListPodSandboxMetrics";
        update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest) -> UpdatePodSandboxResourcesResponse
            = "UpdatePodSandboxResources";
    }
    unsupported_streams {
        stream_pod_sandboxes(StreamPodSandboxesRequest) -> StreamPodSandboxesStream<StreamPodSandboxesResponse>
            = "StreamPodSandboxes";
        stream_containers(StreamContainersRequest) -> StreamContainersStream<StreamContainersResponse> = "StreamContainers";
        stream_container_stats(StreamContainerStatsRequest) -> StreamContainerStatsStream<StreamContainerStatsResponse>
            = "StreamContainerStats";
        stream_pod_sandbox_stats(StreamPodSandboxStatsRequest) -> StreamPodSandboxStatsStream<StreamPodSandboxStatsResponse>
            = "StreamPodSandboxStats";
        stream_pod_sandbox_metrics(StreamPodSandboxMetricsRequest)
            -> StreamPodSandboxMetricsStream<StreamPodSandboxMetricsResponse> = "StreamPodSandboxMetrics";
        get_container_events(GetEventsRequest) -> GetContainerEventsStream<ContainerEventResponse> = "GetContainerEvents";
    }
}
