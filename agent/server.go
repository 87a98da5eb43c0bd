package agent

import (
	"context"

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

// maxStats bounds the tasks of one request; a node runs far fewer.
const maxStats = 8192

// ReadTaskStats implements api.AgentServer. Tasks that don't run here are left out.
func (s *server) ReadTaskStats(ctx context.Context, r *api.ReadTaskStatsRequest) (*api.ReadTaskStatsResponse, error) {
	out, err := s.a.stats(ctx, r.GetTaskIds())
	return &api.ReadTaskStatsResponse{Tasks: out}, s.answer("ReadTaskStats", err)
}

func (a *Agent) stats(ctx context.Context, ids []string) ([]*api.TaskStats, error) {
	if len(ids) > maxStats {
		return nil, fault.New(fault.Invalid, "statistics of %d tasks of one node at once: the most is %d", len(ids), maxStats)
	}
	node, err := Resources()
	if err != nil {
		return nil, err
	}
	var out []*api.TaskStats
	for _, id := range ids {
		t, err := a.executor.Stats(ctx, id)
		if fault.KindOf(err) == fault.NotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		if total := uint64(node.GetMemoryBytes()); t.Memory.LimitBytes == 0 || t.Memory.LimitBytes > total {
			t.Memory.LimitBytes = total
		}
		out = append(out, t)
	}
	return out, nil
}

// answer turns an error into a status, and logs the ones whose text the caller doesn't get.
func (s *server) answer(method string, err error) error {
	if err != nil && fault.KindOf(err) == fault.Internal {
		s.a.log.Error("a request of another node failed", "method", method, "error", err)
	}
	return fault.Status(err)
}
