package e2e_test

import (
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/skep-io/skep/api"
)

// A manager that starts again never says that it is in no swarm, however soon it is asked.
func TestDaemon_KnowsWhatItIsFromItsFirstAnswerOn(t *testing.T) {
	t.Parallel()
	m := swarmOf(t, newLab(t), "m1")[0]
	ctx, cancel := deadline()
	defer cancel()
	for range 10 {
		if err := m.Kill(); err != nil {
			t.Fatal(err)
		}
		conn, err := grpc.NewClient("unix://"+m.Socket(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{MaxDelay: time.Millisecond}, MinConnectTimeout: patience}))
		if err != nil {
			t.Fatal(err)
		}
		asked := make(chan error, 1)
		go func() {
			info, err := api.NewDaemonClient(conn).GetInfo(ctx, &api.GetInfoRequest{}, grpc.WaitForReady(true))
			if info.GetState() != api.LocalNodeState_LOCAL_NODE_STATE_ACTIVE {
				t.Errorf("state %v, %v", info.GetState(), err)
			}
			asked <- err
		}()
		if err := m.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if err := <-asked; err != nil {
			t.Error(err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
