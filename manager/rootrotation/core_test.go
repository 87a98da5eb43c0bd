package rootrotation_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/manager/rootrotation"
)

// world is a swarm in virtual time: nodes that take their time to renew.
type world struct {
	t      testing.TB
	now    time.Time
	state  rootrotation.State
	done   *api.NodeTLS
	ready  map[string]time.Time // when a node that was asked is done
	asked  map[string]int       // how often
	atOnce int                  // nodes that renewed at the same time, at most
}

// newWorld returns one of n nodes, all up, and a rotation that has just begun.
func newWorld(t testing.TB, n int) *world {
	t.Helper()
	var certs [2][]byte
	for i := range certs {
		root, err := ca.NewRoot()
		if err != nil {
			t.Fatal(err)
		}
		certs[i] = root.CertificatePEM()
	}
	w := &world{t: t, now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), ready: map[string]time.Time{}, asked: map[string]int{}}
	w.state.Root = &api.RootCA{Certificate: certs[0], Rotation: &api.RootRotation{Id: "r1", Certificate: certs[1]}}
	target, err := ca.TargetOf(w.state.Root)
	if err != nil {
		t.Fatal(err)
	}
	w.done = &api.NodeTLS{IssuerKeyDigest: target.KeyDigest, TrustedRootDigests: [][]byte{target.RootDigest}, MetRotationId: "r1"}
	for i := range n {
		w.state.Nodes = append(w.state.Nodes, &api.Node{
			Id: fmt.Sprintf("n%04d", i), Status: &api.NodeStatus{State: api.NodeState_NODE_STATE_READY},
			Tls: &api.NodeTLS{TrustedRootDigests: [][]byte{target.RootDigest}},
		})
	}
	return w
}

func (w *world) step() rootrotation.Decision {
	w.t.Helper()
	d, err := rootrotation.Step(w.now, w.state)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, id := range d.Ask {
		w.asked[id]++
		n := w.state.Nodes[slices.IndexFunc(w.state.Nodes, func(n *api.Node) bool { return n.GetId() == id })]
		n.Renewal = &api.RenewalRequest{RotationId: w.state.Root.GetRotation().GetId(), AskedAt: timestamppb.New(w.now)}
	}
	return d
}

// run lets each node be done a while after it was asked, by that function of its number, and returns after what time the rotation
// finished.
func (w *world) run(takes func(i int) time.Duration) time.Duration {
	w.t.Helper()
	const tick = 100 * time.Millisecond
	begun := w.now
	for w.now.Sub(begun) < time.Hour {
		if w.step().Finish {
			return w.now.Sub(begun)
		}
		busy := 0
		for i, n := range w.state.Nodes {
			if n.GetRenewal() == nil || n.GetTls() == w.done {
				continue
			}
			busy++
			if w.now.Sub(n.GetRenewal().GetAskedAt().AsTime()) >= takes(i) {
				n.Tls = w.done
			}
		}
		w.atOnce = max(w.atOnce, busy)
		w.now = w.now.Add(tick)
	}
	w.t.Fatal("the rotation did not end within an hour")
	return 0
}

func TestStep_AThousandNodesInAMinute(t *testing.T) {
	w := newWorld(t, 1000)
	took := w.run(func(int) time.Duration { return 2 * time.Second })
	if took > time.Minute {
		t.Errorf("took %v", took)
	}
	if w.atOnce > 50 {
		t.Errorf("%d nodes renewed at the same time", w.atOnce)
	}
	for id, times := range w.asked {
		if times != 1 {
			t.Fatalf("node %s was asked %d times", id, times)
		}
	}
	t.Logf("%v, up to %d nodes at once", took, w.atOnce)
}

// Nodes that answer and do nothing hold up others for a while only, and are asked again.
func TestStep_NodesThatHangDoNotKeepOthersBack(t *testing.T) {
	w := newWorld(t, 120)
	took := w.run(func(i int) time.Duration {
		if i < 60 && w.asked[fmt.Sprintf("n%04d", i)] < 2 {
			return time.Hour
		}
		return time.Second
	})
	if took > 3*time.Minute {
		t.Errorf("took %v", took)
	}
	if w.asked["n0000"] < 2 || w.asked["n0119"] != 1 {
		t.Errorf("the first was asked %d times, the last %d times", w.asked["n0000"], w.asked["n0119"])
	}
}

func TestStep_WaitsForANodeThatIsDown(t *testing.T) {
	w := newWorld(t, 3)
	down := w.state.Nodes[1]
	down.Status.State = api.NodeState_NODE_STATE_DOWN
	if d := w.step(); d.Finish || !slices.Equal(d.Ask, []string{"n0000", "n0002"}) {
		t.Fatalf("%+v", d)
	}
	w.state.Nodes[0].Tls, w.state.Nodes[2].Tls = w.done, w.done
	if d := w.step(); d.Finish || len(d.Ask) > 0 || d.Wake != 0 {
		t.Errorf("with one that is down: %+v", d)
	}
	down.Status.State = api.NodeState_NODE_STATE_READY
	if d := w.step(); d.Finish || !slices.Equal(d.Ask, []string{"n0001"}) || d.Wake == 0 {
		t.Errorf("when it is back: %+v", d)
	}
	down.Tls = &api.NodeTLS{IssuerKeyDigest: w.done.GetIssuerKeyDigest(), MetRotationId: "r1"}
	if d := w.step(); d.Finish {
		t.Error("finished with a node that does not trust the root to be")
	}
	down.Tls = proto.CloneOf(w.done)
	down.Tls.WorkloadIssuerKeyDigests = [][]byte{w.done.GetIssuerKeyDigest(), []byte("former")}
	if d := w.step(); d.Finish {
		t.Error("finished with a task whose identity is by the former root")
	}
	for what, become := range map[string]func(*api.Node){
		"waits for approval": func(n *api.Node) { n.Approval = &api.Approval{State: api.ApprovalState_APPROVAL_STATE_PENDING} },
		"is compromised":     func(n *api.Node) { n.Compromise = &api.Compromise{At: timestamppb.New(w.now)} },
	} {
		n := proto.CloneOf(down)
		become(n)
		if d, err := rootrotation.Step(w.now, rootrotation.State{Root: w.state.Root, Nodes: []*api.Node{w.state.Nodes[0], n}}); err != nil || !d.Finish {
			t.Errorf("with one that %s: %+v, %v", what, d, err)
		}
	}
	w.state.Nodes = slices.Delete(w.state.Nodes, 1, 2)
	if d := w.step(); !d.Finish {
		t.Errorf("when it is removed: %+v", d)
	}
}

func TestStep_AnotherRotationTakesThePlaceOfTheFirst(t *testing.T) {
	w := newWorld(t, 2)
	w.step()
	w.state.Nodes[0].Tls = w.done
	other := newWorld(t, 0).state.Root
	w.state.Root.Rotation = &api.RootRotation{Id: "r2", Certificate: other.GetCertificate()}
	if d := w.step(); d.Finish || len(d.Ask) != 2 {
		t.Errorf("superseded: %+v", d)
	}
	w.state.Root.Rotation = nil
	if d := w.step(); d.Finish || len(d.Ask) > 0 {
		t.Errorf("without a rotation: %+v", d)
	}
}

// An aborted rotation is over only when no certificate by the other root can come any more: a node that still has its former one may
// have asked for another just before.
func TestStep_AnAbortionWaitsForRenewalsUnderWay(t *testing.T) {
	w := newWorld(t, 3)
	w.state.Nodes[2].Status.State = api.NodeState_NODE_STATE_DOWN
	back, err := ca.TargetOf(&api.RootCA{Certificate: w.state.Root.GetCertificate()})
	if err != nil {
		t.Fatal(err)
	}
	former := func(met string) *api.NodeTLS {
		return &api.NodeTLS{IssuerKeyDigest: back.KeyDigest, TrustedRootDigests: [][]byte{back.RootDigest}, MetRotationId: met}
	}
	for _, n := range w.state.Nodes {
		n.Tls = former("")
	}
	if d := w.step(); len(d.Ask) != 2 {
		t.Fatalf("%+v", d)
	}
	w.state.Nodes[0].Tls = w.done
	w.state.Root.Rotation = &api.RootRotation{Id: "r2"}
	if d := w.step(); d.Finish || !slices.Equal(d.Ask, []string{"n0000", "n0001"}) {
		t.Errorf("aborted, with one that has renewed and one that may be about to: %+v", d)
	}
	w.state.Nodes[0].Tls = former("r2")
	if d := w.step(); d.Finish {
		t.Errorf("with one that may be about to renew: %+v", d)
	}
	w.state.Nodes[1].Tls = former("r2")
	if d := w.step(); !d.Finish {
		t.Errorf("with one that was never asked: %+v", d)
	}
}
