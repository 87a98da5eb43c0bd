package agent

import (
	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// server is the Agent service. Who may call is declared in the proto, and enforced before a call comes here.
type server struct {
	api.UnimplementedAgentServer
	a *Agent
}

// GetBlob implements api.AgentServer.
func (s *server) GetBlob(r *api.GetBlobRequest, stream grpc.ServerStreamingServer[api.GetBlobResponse]) error {
	return s.answer("GetBlob", s.a.blobs.Send(stream.Context(), r, stream.Send))
}

// ReadTaskLogs implements api.AgentServer.
func (s *server) ReadTaskLogs(r *api.ReadTaskLogsRequest, stream grpc.ServerStreamingServer[api.ReadTaskLogsResponse]) error {
	send := func(l *api.LogLine) error { return stream.Send(&api.ReadTaskLogsResponse{Line: l}) }
	return s.answer("ReadTaskLogs", s.a.logs.Read(stream.Context(), r.GetTaskIds(), r.GetOptions(), send))
}

// answer turns an error into a status, and logs the ones whose text the caller doesn't get.
func (s *server) answer(method string, err error) error {
	if err != nil && fault.KindOf(err) == fault.Internal {
		s.a.log.Error("a request of another node failed", "method", method, "error", err)
	}
	return fault.Status(err)
}
