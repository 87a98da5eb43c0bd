package cli_test

import (
	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// LearnSeccomp says at once what it has, and twice the same.
func (f *fake) LearnSeccomp(stream grpc.BidiStreamingServer[api.LearnSeccompRequest, api.LearnSeccompResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	f.mu.Lock()
	gap := f.statsGap
	f.mu.Unlock()
	if gap == "refused" {
		return fault.New(fault.Precondition, "the system calls of service %s can't be recorded: node host1: no BPF", start.GetService())
	}
	progress := &api.LearnProgress{Tasks: 2, FromStart: 1, Used: []string{"read", "write"}, Refused: []string{"mount", "\x1b[2J"}}
	for range 2 {
		if err := stream.Send(&api.LearnSeccompResponse{Event: &api.LearnSeccompResponse_Progress{Progress: progress}}); err != nil {
			return err
		}
	}
	result := &api.LearnResult{Profile: []byte(`{"for": "` + start.GetDuration().AsDuration().String() + `"}`), Progress: progress}
	if gap != "" {
		result.Warnings = []string{"odd\nthing"}
		progress.Gaps = []*api.LearnGap{{NodeId: "node2", NodeHostname: "host2", Reason: gap}}
	}
	return stream.Send(&api.LearnSeccompResponse{Event: &api.LearnSeccompResponse_Result{Result: result}})
}
