package dispatcher_test

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/dispatcher"
	"github.com/skep-io/skep/store/storetest"
)

// TestAssignments_ComeInPartsToWhoAsks: what a node gets may be more than one message can hold. Agents that know of no parts get one.
func TestAssignments_ComeInPartsToWhoAsks(t *testing.T) {
	const secrets, size = 20, 500 << 10
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1")
		storetest.Create(t, c.store, node("n1"))
		var ids []string
		for i := range secrets {
			ids = append(ids, fmt.Sprintf("s%02d", i))
			storetest.Create(t, c.store, &api.Secret{Id: ids[i], Spec: &api.SecretSpec{
				Annotations: &api.Annotations{Name: ids[i]}, Data: bytes.Repeat([]byte{byte(i)}, size),
			}})
		}
		storetest.Create(t, c.store, assignedTask("a", "n1", ids...), assignedTask("b", "n1"))
		a := c.connect("n1", "m1").mustRegister()
		receive := func(parts bool) (messages []*api.AssignmentsResponse) {
			stream, err := a.client.Assignments(a.ctx(), &api.AssignmentsRequest{SessionId: a.sessionID, Parts: parts}, grpc.MaxCallRecvMsgSize(64<<20))
			if err != nil {
				t.Fatal(err)
			}
			for more := true; more; {
				m, err := stream.Recv()
				if err != nil {
					t.Fatal(err)
				}
				messages, more = append(messages, m), m.GetMore()
			}
			return messages
		}
		whole, parts := receive(false), receive(true)
		if len(whole) != 1 || len(whole[0].GetChanges()) != secrets+2 {
			t.Fatalf("%d messages to an agent that knows of no parts, the first with %d changes", len(whole), len(whole[0].GetChanges()))
		}
		joined := &api.AssignmentsResponse{Complete: true, ResultsIn: 1}
		for _, m := range parts {
			if got, most := proto.Size(m), dispatcher.PartSize+size+1000; got > most {
				t.Errorf("a part has %d bytes, %d at most", got, most)
			}
			if !m.GetComplete() || m.GetAppliesTo() != 0 || m.GetResultsIn() != 1 {
				t.Errorf("a part says complete %v, after %d, results in %d", m.GetComplete(), m.GetAppliesTo(), m.GetResultsIn())
			}
			joined.Changes = append(joined.Changes, m.GetChanges()...)
		}
		if len(parts) != 3 || !proto.Equal(whole[0], joined) {
			t.Errorf("%d parts, want 3 which together are the same", len(parts))
		}
	})
}
