package dispatcher

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
)

// A node's root can say anything of its tasks, and has the swarm keep little of it.
func TestClipped_BoundsAllThatANodeSays(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	status := &api.TaskStatus{Message: long, Err: long, Container: &api.ContainerStatus{
		ContainerId: long, Address: long, HealthOutput: long, Isolation: append([]string{long, "seccomp"}, make([]string, 1000)...),
		HealthChecks: longLog(long),
	}, Readiness: &api.Readiness{Checks: longLog(long)}}
	if size := proto.Size(clipped(status)); size > 14<<10 {
		t.Errorf("%d bytes are kept", size)
	}
	honest := &api.TaskStatus{Message: "started", Container: &api.ContainerStatus{Isolation: []string{"userns", "apparmor=" + strings.Repeat("p", 500)}, HealthChecks: &api.ProbeLog{
		FailingStreak: 2, Results: []*api.ProbeResult{{ExitCode: 1, Output: "no"}, {ExitCode: 2, Output: long[:maxOutput-2]}},
	}}}
	if got := clipped(honest); !proto.Equal(got, honest) {
		t.Errorf("an honest status became %v", got)
	}
}

func longLog(text string) *api.ProbeLog {
	log := new(api.ProbeLog)
	for range 1000 {
		log.Results = append(log.Results, &api.ProbeResult{Output: text})
	}
	return log
}
