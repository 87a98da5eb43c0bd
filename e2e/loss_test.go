package e2e_test

import (
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/skep-io/skep/api"
)

// TestLoss_OfPacketsOnOneLinkMakesNoNodeDown: half of the packets between two machines are lost for more than two seconds, and
// others still reach both.
func TestLoss_OfPacketsOnOneLinkMakesNoNodeDown(t *testing.T) {
	network := newLab(t)
	machines := swarmOf(t, network, "m1", "m2", "m3")
	conn, err := grpc.NewClient("unix://"+machines[2].Socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	changes := func() map[string]time.Time {
		response, err := api.NewControlClient(conn).ListNodes(t.Context(), &api.ListNodesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]time.Time{}
		for _, n := range response.GetNodes() {
			out[n.GetDescription().GetHostname()+" "+n.GetStatus().GetState().String()] = n.GetStatus().GetChangedAt().AsTime()
		}
		return out
	}
	before := changes()
	loss, err := network.Lose(machines[0], machines[1], 2)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	watch := func() {
		<-tick.C
		for node, at := range changes() {
			if before[node] != at {
				t.Fatalf("after %v: %s", time.Since(began), node)
			}
		}
	}
	const enough = 50
	var lost uint64
	for lost < enough || time.Since(began) < 2*time.Second {
		watch()
		if lost, err = loss.Lost(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d packets were lost within %v", lost, time.Since(began))
	if err := loss.End(); err != nil {
		t.Fatal(err)
	}
	for range 50 { // what was suspected would be down by then
		watch()
	}
}
