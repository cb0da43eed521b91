//! CRI's RuntimeService: one row per RPC, in the order of `api.proto`. What a row names converts, calls the engine and
//! maps the error; a row with a text answers UNIMPLEMENTED by that name.

mod containers;
mod events;
mod exec;
mod info;
mod pods;
mod stats;
mod stream;
pub(crate) mod streams;

use proto::runtime::v1::runtime_service_server::RuntimeService;
use proto::runtime::v1::*;
use tonic::{Request, Response, Status};

use crate::node::Node;
use crate::status::unsupported;

/// The service over a node's engine.
#[derive(Debug, Clone)]
pub(crate) struct Runtime(pub(crate) Node);

use streams::Answers;

macro_rules! runtime_service {
    (
        supported {
            $( $rpc:ident($request:ty) -> $response:ty = $handler:path; )*
        }
        unsupported {
            $( $other:ident($other_request:ty) -> $other_response:ty = $name:literal; )*
        }
        streams {
            $( $stream:ident($stream_request:ty) -> $associated:ident<$item:ty> = $stream_handler:path; )*
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
                type $associated = Answers<$item>;
                async fn $stream(&self, request: Request<$stream_request>) -> Result<Response<Answers<$item>>, Status> {
                    $stream_handler(&self.0, request.into_inner()).await.map(Response::new)
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
        exec(ExecRequest) -> ExecResponse = stream::exec;
        attach(AttachRequest) -> AttachResponse = stream::attach;
        port_forward(PortForwardRequest) -> PortForwardResponse = stream::port_forward;
        update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse = info::update_runtime_config;
        status(StatusRequest) -> StatusResponse = info::status;
        runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse = info::runtime_config;
        container_stats(ContainerStatsRequest) -> ContainerStatsResponse = stats::container;
        list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse = stats::list_containers;
        pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse = stats::pod;
        list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse = stats::list_pods;
        list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse = stats::descriptors;
        list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse = stats::metrics;
        update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest) -> UpdatePodSandboxResourcesResponse = pods::update;
    }
    unsupported {
        checkpoint_pod(CheckpointPodRequest) -> CheckpointPodResponse = "CheckpointPod";
        restore_pod(RestorePodRequest) -> RestorePodResponse = "RestorePod";
        checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse = "CheckpointContainer";
    }
    streams {
        stream_pod_sandboxes(StreamPodSandboxesRequest) -> StreamPodSandboxesStream<StreamPodSandboxesResponse>
            = streams::pods;
        stream_containers(StreamContainersRequest) -> StreamContainersStream<StreamContainersResponse>
            = streams::containers;
        stream_container_stats(StreamContainerStatsRequest) -> StreamContainerStatsStream<StreamContainerStatsResponse>
            = streams::container_stats;
        stream_pod_sandbox_stats(StreamPodSandboxStatsRequest) -> StreamPodSandboxStatsStream<StreamPodSandboxStatsResponse>
            = streams::pod_stats;
        stream_pod_sandbox_metrics(StreamPodSandboxMetricsRequest)
            -> StreamPodSandboxMetricsStream<StreamPodSandboxMetricsResponse> = streams::pod_metrics;
        get_container_events(GetEventsRequest) -> GetContainerEventsStream<ContainerEventResponse> = events::get;
    }
}
