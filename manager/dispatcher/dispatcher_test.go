package dispatcher_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/dispatcher"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

func TestSession_RegistersAndTellsWhatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1", "m2")
		storetest.Create(t, c.store, node("n1"))
		a := c.connect("n1", "m2").mustRegister() // a follower
		synctest.Wait()
		n := storetest.Get[*api.Node](t, c.store, "n1")
		if n.GetStatus().GetState() != api.NodeState_NODE_STATE_READY || n.GetDescription().GetHostname() != "host-n1" ||
			n.GetStatus().GetAddress() != "10.0.0.7" {
			t.Errorf("got node %v", n)
		}
		first := <-a.messages
		if string(first.GetRootCertificate()) != "root" || first.GetHeartbeatPeriod().AsDuration() != 5*time.Second ||
			first.GetManagers()[0].GetAddress() != "m1:2377" || first.GetNode().GetId() != "n1" {
			t.Errorf("got message %v", first)
		}
		if len(a.messages) != 0 {
			t.Error("the node was told what it had said itself")
		}
		change(t, c.store, "n1", func(n *api.Node) { n.Spec.Availability = api.Availability_AVAILABILITY_DRAIN })
		if got := (<-a.messages).GetNode().GetSpec().GetAvailability(); got != api.Availability_AVAILABILITY_DRAIN {
			t.Errorf("got availability %v", got)
		}
		change(t, c.store, "c", func(c *api.Cluster) { c.RootCa.Certificate = []byte("new root") })
		if got := (<-a.messages).GetRootCertificate(); string(got) != "new root" {
			t.Errorf("got root %q", got)
		}
		change(t, c.store, "c", func(c *api.Cluster) { c.Revocations = []*api.Revocation{{NodeId: "n9"}} })
		if got := <-a.messages; len(got.GetRevocations()) != 1 || got.GetRevocationsVersion() != c.store.Status().Applied {
			t.Errorf("got revocations %v of version %d", got.GetRevocations(), got.GetRevocationsVersion())
		}
	})
}

// An agent that does not take what a manager shows of the audit log ends the session before it uses it, and tries again and again.
func TestSession_ANodeThatDoesNotUseItIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1", "m2")
		storetest.Create(t, c.store, node("n1"))
		a := c.connect("n1", "m2")
		if err := a.open(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := c.nodeState("n1"); got != api.NodeState_NODE_STATE_UNKNOWN {
			t.Errorf("before it used the session: got %v, want UNKNOWN", got)
		}
		if err := a.heartbeat(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := storetest.Get[*api.Node](t, c.store, "n1"); got.GetStatus().GetState() != api.NodeState_NODE_STATE_READY || got.GetDescription().GetHostname() != "host-n1" {
			t.Errorf("once it used it: got %v, want READY with its description", got)
		}
	})
}

func TestSession_UnknownIDsAndNodesAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1")
		storetest.Create(t, c.store, node("n1"), node("n2"), assignedTask("t", "n1"))
		a := c.connect("n1", "m1").mustRegister()
		thief := c.connect("n2", "m1")
		thief.sessionID = a.sessionID
		wantCode(t, "another node's session", thief.heartbeat(), codes.InvalidArgument)
		a.sessionID = "guess"
		wantCode(t, "heartbeat", a.heartbeat(), codes.InvalidArgument)
		wantCode(t, "status", a.report("t", api.TaskState_TASK_STATE_RUNNING), codes.InvalidArgument)
		_, err := a.client.UpdateDescription(a.ctx(), &api.UpdateDescriptionRequest{SessionId: a.sessionID})
		wantCode(t, "description", err, codes.InvalidArgument)
		if m, ok := <-a.assignments(); ok {
			t.Errorf("assignments: got %v", m)
		}
		wantCode(t, "a node that the swarm doesn't have", c.connect("n3", "m1").register(), codes.PermissionDenied)
		wantCode(t, "a stranger", c.connect("", "m1").register(), codes.PermissionDenied)
	})
}

func TestSession_RegistrationsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1")
		storetest.Create(t, c.store, node("n1"))
		a := c.connect("n1", "m1")
		for range 3 {
			a.mustRegister()
		}
		wantCode(t, "the fourth registration", a.register(), codes.Unavailable)
		time.Sleep(8 * time.Second)
		a.mustRegister()
	})
}

func TestSession_EndsWithTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1", "m2")
		storetest.Create(t, c.store, node("n1"))
		a := c.connect("n1", "m2").mustRegister()
		synctest.Wait()
		err := c.store.Update(t.Context(), "", func(tx store.Tx) error { return tx.Delete(2, "n1") })
		if err != nil {
			t.Fatal(err)
		}
		wantCode(t, "the session of a removed node", <-a.ended, codes.PermissionDenied)
		wantCode(t, "its heartbeat", a.heartbeat(), codes.InvalidArgument)
		wantCode(t, "its registration", a.register(), codes.PermissionDenied)
		time.Sleep(time.Minute)
		if got := len(storetest.List[*api.Node](t, c.store)); got != 0 {
			t.Errorf("%d nodes came back", got)
		}
	})
}

func TestHeartbeat_MissedOnesMakeANodeDown(t *testing.T) {
	for _, via := range []string{"m1", "m2"} {
		t.Run("through "+via, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, "m1", "m2")
				storetest.Create(t, c.store, node("n1"), node("n2"))
				time.Sleep(time.Minute) // the leader is not new any more
				silent, alive := c.connect("n1", via).mustRegister(), c.connect("n2", via).mustRegister()
				for range 5 {
					time.Sleep(2900 * time.Millisecond)
					if err := alive.heartbeat(); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				if got := c.nodeState("n1"); got != api.NodeState_NODE_STATE_READY {
					t.Errorf("after 14.5 s: got %v, want READY", got)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if got := c.nodeState("n1"); got != api.NodeState_NODE_STATE_DOWN {
					t.Errorf("after 15.5 s: got %v, want DOWN", got)
				}
				if got := c.nodeState("n2"); got != api.NodeState_NODE_STATE_READY {
					t.Errorf("the other node: got %v, want READY", got)
				}
				wantCode(t, "the silent session", <-silent.ended, codes.InvalidArgument)
				silent.mustRegister()
				synctest.Wait()
				if got := c.nodeState("n1"); got != api.NodeState_NODE_STATE_READY {
					t.Errorf("after it registered again: got %v, want READY", got)
				}
			})
		})
	}
}

func TestAgent_GoesOnAtAnotherManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1", "m2", "m3")
		storetest.Create(t, c.store, node("n1"), assignedTask("t", "n1"))
		a := c.connect("n1", "m1").mustRegister()
		if err := a.report("t", api.TaskState_TASK_STATE_ACCEPTED); err != nil {
			t.Fatal(err)
		}
		c.elect("m2") // while m1 dies
		c.managers["m1"].stop()
		if err := <-a.ended; err == nil {
			t.Error("the session survived its manager")
		}
		b := c.connect("n1", "m3")
		b.sessionID = a.sessionID
		wantCode(t, "the session of another manager", b.heartbeat(), codes.InvalidArgument)
		b.mustRegister()
		if m := <-b.assignments(); !m.GetComplete() || len(m.GetChanges()) != 1 {
			t.Errorf("got assignments %v, want all", m)
		}
		if err := b.report("t", api.TaskState_TASK_STATE_RUNNING); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			time.Sleep(4 * time.Second)
			if err := b.heartbeat(); err != nil {
				t.Fatal(err)
			}
			if got := c.nodeState("n1"); got != api.NodeState_NODE_STATE_READY {
				t.Fatalf("got %v, want READY all the time", got)
			}
		}
		if got := storetest.Get[*api.Task](t, c.store, "t").GetStatus().GetState(); got != api.TaskState_TASK_STATE_RUNNING {
			t.Errorf("got %v, want RUNNING", got)
		}
	})
}

func TestUpdateTaskStatus_OnlyForOwnTasksAndOnlyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1", "m2")
		storetest.Create(t, c.store, node("n1"), node("n2"), assignedTask("mine", "n1"), assignedTask("theirs", "n2"))
		a := c.connect("n1", "m2").mustRegister()
		state := func(id string) api.TaskState {
			return storetest.Get[*api.Task](t, c.store, id).GetStatus().GetState()
		}
		wantCode(t, "another node's task", a.report("theirs", api.TaskState_TASK_STATE_RUNNING), codes.PermissionDenied)
		if got := state("theirs"); got != api.TaskState_TASK_STATE_ASSIGNED {
			t.Errorf("another node's task: got %v", got)
		}
		for _, s := range []api.TaskState{api.TaskState_TASK_STATE_PENDING, api.TaskState_TASK_STATE_ORPHANED, api.TaskState_TASK_STATE_REMOVE} {
			wantCode(t, s.String(), a.report("mine", s), codes.InvalidArgument)
		}
		for _, tt := range []struct{ said, want api.TaskState }{
			{api.TaskState_TASK_STATE_RUNNING, api.TaskState_TASK_STATE_RUNNING},
			{api.TaskState_TASK_STATE_PREPARING, api.TaskState_TASK_STATE_RUNNING},
			{api.TaskState_TASK_STATE_FAILED, api.TaskState_TASK_STATE_FAILED},
			{api.TaskState_TASK_STATE_REJECTED, api.TaskState_TASK_STATE_FAILED},
		} {
			if err := a.report("mine", tt.said); err != nil {
				t.Errorf("%v: %v", tt.said, err)
			}
			if got := state("mine"); got != tt.want { // at once: what is acknowledged is committed
				t.Errorf("after %v: got %v, want %v", tt.said, got, tt.want)
			}
		}
		if err := a.report("gone", api.TaskState_TASK_STATE_RUNNING); err != nil {
			t.Errorf("a task that was deleted: %v", err)
		}
	})
}

// TestRelay_ChecksAgain: the leader knows best (I6).
func TestRelay_ChecksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1")
		running := assignedTask("running", "n1")
		running.Status.State = api.TaskState_TASK_STATE_RUNNING
		storetest.Create(t, c.store, node("n1"), assignedTask("t", "n2"), running)
		_, err := c.connect("m2", "m1").client.Relay(t.Context(), &api.RelayRequest{Reports: []*api.NodeReport{{
			NodeId: "n1", HeardAgo: durationpb.New(time.Second),
			Statuses: []*api.TaskStatusUpdate{
				{TaskId: "t", Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING}},
				{TaskId: "running", Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_PREPARING}},
			},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := storetest.Get[*api.Task](t, c.store, "t").GetStatus().GetState(); got != api.TaskState_TASK_STATE_ASSIGNED {
			t.Errorf("another node's task: got %v", got)
		}
		if got := storetest.Get[*api.Task](t, c.store, "running").GetStatus().GetState(); got != api.TaskState_TASK_STATE_RUNNING {
			t.Errorf("a lower state: got %v", got)
		}
		if got := c.nodeState("n1"); got != api.NodeState_NODE_STATE_READY {
			t.Errorf("got %v, want READY", got)
		}
	})
}

// TestUpdateTaskStatus_WaitsForALeader: nothing is acknowledged while nobody could have committed it, and nothing is lost.
func TestUpdateTaskStatus_WaitsForALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1", "m2", "m3")
		storetest.Create(t, c.store, node("n1"), assignedTask("t", "n1"))
		a := c.connect("n1", "m2").mustRegister()
		synctest.Wait()
		c.elect("")
		answered := make(chan error, 1)
		go func() { answered <- a.report("t", api.TaskState_TASK_STATE_RUNNING) }()
		time.Sleep(2 * time.Second)
		select {
		case err := <-answered:
			t.Fatalf("answered without a leader: %v", err)
		default:
		}
		if err := a.heartbeat(); err != nil {
			t.Errorf("heartbeat without a leader: %v", err)
		}
		c.elect("m3")
		if err := <-answered; err != nil {
			t.Errorf("got %v", err)
		}
		if got := storetest.Get[*api.Task](t, c.store, "t").GetStatus().GetState(); got != api.TaskState_TASK_STATE_RUNNING {
			t.Errorf("got %v, want RUNNING", got)
		}
		c.elect("")
		wantCode(t, "after the caller's patience", a.report("t", api.TaskState_TASK_STATE_COMPLETE), codes.DeadlineExceeded)
	})
}

// TestUpdateTaskStatus_DoesNotWaitForADeadLeader: the next one is asked at once, although the former one still owes an answer.
func TestUpdateTaskStatus_DoesNotWaitForADeadLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1", "m2", "m3")
		storetest.Create(t, c.store, node("n1"), assignedTask("t", "n1"))
		a := c.connect("n1", "m2").mustRegister()
		synctest.Wait()
		c.setHole("m1")
		begun := time.Now()
		answered := make(chan error, 1)
		go func() { answered <- a.report("t", api.TaskState_TASK_STATE_RUNNING) }()
		time.Sleep(time.Second)
		c.elect("m3")
		if err := <-answered; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > 1100*time.Millisecond {
			t.Errorf("the status took %v, the election one second of it", took)
		}
	})
}

// TestHeartbeat_RefusedByAManagerThatIsCutOff: its agents must go elsewhere before they are thought dead.
func TestHeartbeat_RefusedByAManagerThatIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1", "m2")
		storetest.Create(t, c.store, node("n1"))
		time.Sleep(time.Minute)
		a := c.connect("n1", "m2").mustRegister()
		synctest.Wait()
		c.setCut(true)
		if err := a.heartbeat(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		wantCode(t, "heartbeat", a.heartbeat(), codes.Unavailable)
		wantCode(t, "registration", c.connect("n1", "m2").register(), codes.Unavailable)
		b := c.connect("n1", "m1").mustRegister()
		for range 5 {
			time.Sleep(4 * time.Second)
			if err := b.heartbeat(); err != nil {
				t.Fatal(err)
			}
		}
		if got := c.nodeState("n1"); got != api.NodeState_NODE_STATE_READY {
			t.Errorf("got %v, want READY", got)
		}
		c.setCut(false)
		time.Sleep(2 * time.Second)
		if err := c.connect("n1", "m2").register(); err != nil {
			t.Errorf("the manager is back, but: %v", err)
		}
	})
}

// TestHeartbeat_RefusedByAManagerThatKnowsNoLeader: it may be the only one that was left behind, such as one that was demoted while it was
// off, whose own agent would never hear of that.
func TestHeartbeat_RefusedByAManagerThatKnowsNoLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1", "m2")
		storetest.Create(t, c.store, node("n1"))
		time.Sleep(time.Minute)
		a := c.connect("n1", "m2").mustRegister()
		synctest.Wait()
		c.elect("")
		if err := a.heartbeat(); err != nil {
			t.Errorf("during an election: %v", err)
		}
		time.Sleep(6 * time.Second)
		wantCode(t, "heartbeat", a.heartbeat(), codes.Unavailable)
		wantCode(t, "registration", c.connect("n1", "m2").register(), codes.Unavailable)
		c.elect("m1")
		time.Sleep(2 * time.Second)
		c.connect("n1", "m2").mustRegister()
	})
}

// TestHeartbeat_RefusedBeforeTheNextOneIsLost: what an agent said last may be lost with the leader that can't be reached, so what it says next
// must not be. A leader that Raft hears, and that only takes long, is waited for: it knows already what it was told, and all agents at once
// would be no help to it.
func TestHeartbeat_RefusedBeforeTheNextOneIsLost(t *testing.T) {
	for _, test := range []struct {
		name   string
		cutOff func(*cluster)
		waits  time.Duration
	}{
		{"no leader", func(c *cluster) { c.elect("") }, 3 * time.Second},
		{"no answer", func(c *cluster) { c.setHole("m1") }, 9 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, "m1", "m2")
				storetest.Create(t, c.store, node("n1"))
				a := c.connect("n1", "m2").mustRegister()
				synctest.Wait()
				test.cutOff(c)
				if err := a.heartbeat(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(test.waits)
				if err := a.heartbeat(); err != nil {
					t.Errorf("after %v: %v", test.waits, err)
				}
				time.Sleep(1500 * time.Millisecond)
				wantCode(t, "the next heartbeat", a.heartbeat(), codes.Unavailable)
			})
		})
	}
}

func TestLead_ANewLeaderIsPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1", "m2")
		storetest.Create(t, c.store, node("n1"))
		c.connect("n1", "m1").mustRegister()
		time.Sleep(14 * time.Second)
		c.elect("m2")
		time.Sleep(24 * time.Second)
		if got := c.nodeState("n1"); got != api.NodeState_NODE_STATE_READY {
			t.Errorf("24 s after the election: got %v, want READY", got)
		}
		time.Sleep(2 * time.Second)
		if got := c.nodeState("n1"); got != api.NodeState_NODE_STATE_DOWN {
			t.Errorf("26 s after the election: got %v, want DOWN", got)
		}
	})
}

// names lists changes as "+task t", "-secret s".
func names(m *api.AssignmentsResponse) []string {
	var out []string
	for _, c := range m.GetChanges() {
		sign := "+"
		if c.GetAction() == api.AssignmentAction_ASSIGNMENT_ACTION_REMOVE {
			sign = "-"
		}
		if c.GetTask() != nil {
			out = append(out, sign+"task "+c.GetTask().GetId())
		} else {
			out = append(out, sign+"secret "+c.GetSecret().GetId())
		}
	}
	return out
}

// TestAssignments_SecretsOnlyWhileNeeded (I7).
func TestAssignments_SecretsOnlyWhileNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1", "m2")
		for _, id := range []string{"s1", "s2", "s3"} {
			storetest.Create(t, c.store, &api.Secret{Id: id, Spec: &api.SecretSpec{
				Annotations: &api.Annotations{Name: id}, Data: []byte("canary-" + id),
			}})
		}
		pending := assignedTask("pending", "", "s3")
		pending.Status.State = api.TaskState_TASK_STATE_PENDING
		storetest.Create(t, c.store, node("n1"), node("n2"),
			assignedTask("a", "n1", "s1"), assignedTask("b", "n1", "s1", "missing"), assignedTask("x", "n2", "s2"), pending)
		a := c.connect("n1", "m2").mustRegister()
		stream := a.assignments()
		var last uint64
		expect := func(what string, complete bool, want ...string) {
			t.Helper()
			m := <-stream
			if got := names(m); !slices.Equal(got, want) || m.GetComplete() != complete || m.GetAppliesTo() != last {
				t.Errorf("%s: got %v, complete %v, after %d; want %v, %v, %d", what, got, m.GetComplete(), m.GetAppliesTo(), want, complete, last)
			}
			last = m.GetResultsIn()
		}
		expect("at first", true, "+secret s1", "+task a", "+task b")
		// One of two tasks ends: the other still needs the secret, and what a node said itself is no news.
		if err := a.report("a", api.TaskState_TASK_STATE_FAILED); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(stream) != 0 {
			t.Errorf("got %v", names(<-stream))
		}
		change(t, c.store, "b", func(t *api.Task) { t.DesiredState = api.TaskState_TASK_STATE_SHUTDOWN })
		expect("the last task is to stop", false, "+task b", "-secret s1")
		change(t, c.store, "pending", func(t *api.Task) {
			t.NodeId, t.Status = "n1", &api.TaskStatus{State: api.TaskState_TASK_STATE_ASSIGNED}
		})
		expect("a task is assigned", false, "+secret s3", "+task pending")
		change(t, c.store, "x", func(t *api.Task) { t.DesiredState = api.TaskState_TASK_STATE_SHUTDOWN })
		err := c.store.Update(t.Context(), "", func(tx store.Tx) error { return tx.Delete(4, "a") })
		if err != nil {
			t.Fatal(err)
		}
		expect("a task is deleted", false, "-task a")
		err = c.store.Update(t.Context(), "", func(tx store.Tx) error { return tx.Delete(5, "s3") })
		if err != nil {
			t.Fatal(err)
		}
		expect("a secret is deleted", false, "-secret s3")
	})
}

// A node gets configs as secrets, and as long as secrets; the audit log has secrets only.
func TestAssignments_ConfigsOnlyWhileNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1")
		task := assignedTask("a", "n1", "s1")
		task.Spec.Container.Configs = []*api.SecretReference{
			{SecretId: "c1", SecretName: "site", Target: &api.SecretTarget{Name: "site"}},
			{SecretId: "c1", SecretName: "site", Target: &api.SecretTarget{Name: "/etc/site", Uid: 7}},
		}
		storetest.Create(t, c.store, node("n1"), &api.Secret{Id: "s1", Spec: &api.SecretSpec{Data: []byte("s")}},
			&api.Config{Id: "c1", Spec: &api.ConfigSpec{Annotations: &api.Annotations{Name: "site"}, Data: []byte("listen 80;")}}, task)
		a := c.connect("n1", "m1").mustRegister()
		stream := a.assignments()
		m := <-stream
		if got := names(m); !slices.Equal(got, []string{"+secret c1", "+secret s1", "+task a"}) {
			t.Fatalf("got %v", got)
		}
		if got := string(m.GetChanges()[0].GetSecret().GetSpec().GetData()); got != "listen 80;" {
			t.Errorf("the node got %q", got)
		}
		var targets []string
		for _, r := range m.GetChanges()[2].GetTask().GetSpec().GetContainer().GetSecrets() {
			targets = append(targets, fmt.Sprintf("%s %s %d", r.GetSecretId(), r.GetTarget().GetName(), r.GetTarget().GetUid()))
		}
		if !slices.Equal(targets, []string{"s1  0", "c1 /site 0", "c1 /etc/site 7"}) {
			t.Errorf("got %v", targets)
		}
		change(t, c.store, "a", func(t *api.Task) { t.DesiredState = api.TaskState_TASK_STATE_SHUTDOWN })
		if got := names(<-stream); !slices.Equal(got, []string{"+task a", "-secret c1", "-secret s1"}) {
			t.Errorf("got %v", got)
		}
		if got := storetest.Get[*api.Task](t, c.store, "a").GetSpec().GetContainer(); len(got.GetSecrets()) != 1 || len(got.GetConfigs()) != 2 {
			t.Errorf("the stored task was changed: %v", got)
		}
	})
}

// With a template a node gets what it needs to fill it in, and without one it does not.
func TestAssignments_HaveWhatTemplatesNeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1")
		with := func(id, secret, hostname string) *api.Task {
			task := assignedTask(id, "n1", secret)
			task.ServiceId, task.Spec.Container.Hostname = "web", hostname
			return task
		}
		storetest.Create(t, c.store, node("n1"),
			&api.Service{Id: "web", Spec: &api.ServiceSpec{Annotations: &api.Annotations{Name: "web", Labels: map[string]string{"tier": "front"}}}},
			&api.Secret{Id: "s1", Spec: &api.SecretSpec{Annotations: &api.Annotations{Name: "a"}, Data: []byte("x"), TemplateDriver: "golang"}},
			&api.Secret{Id: "s2", Spec: &api.SecretSpec{Annotations: &api.Annotations{Name: "b"}, Data: []byte("{{")}},
			with("none", "s2", "h"), with("hostname", "s2", "{{.Node.ID}}"), with("secret", "s1", "h"))
		got := map[string]string{}
		for _, change := range (<-c.connect("n1", "m1").mustRegister().assignments()).GetChanges() {
			if task := change.GetTask(); task != nil {
				got[task.GetId()] = fmt.Sprint(task.GetSpec().GetContainer().GetServiceLabels()["tier"], task.GetSpec().GetContainer().GetSecrets()[0].GetTemplate())
			}
		}
		if want := map[string]string{"none": "false", "hostname": "frontfalse", "secret": "fronttrue"}; !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// Two tasks on one node may have two versions of one secret; a new version is no news for those that have another one.
func TestAssignments_HaveTheVersionsThatTasksWant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1")
		at := func(id string, version uint64) *api.Task {
			task := assignedTask(id, "n1", "s1")
			task.Spec.Container.Secrets[0].Version = version
			return task
		}
		storetest.Create(t, c.store, node("n1"),
			&api.Secret{Id: "s1", Version: 3, Spec: &api.SecretSpec{Annotations: &api.Annotations{Name: "db"}, Data: []byte("three")}},
			&api.OldValue{Id: "o2", OwnerId: "s1", Number: 2, Data: []byte("two")},
			at("any", 0), at("second", 2), at("third", 3), at("gone", 1))
		stream := c.connect("n1", "m1").mustRegister().assignments()
		m := <-stream
		got := map[string]string{}
		for _, change := range m.GetChanges() {
			if secret := change.GetSecret(); secret != nil {
				got[secret.GetId()] = string(secret.GetSpec().GetData())
				continue
			}
			r := change.GetTask().GetSpec().GetContainer().GetSecrets()[0]
			got["task "+change.GetTask().GetId()] = r.GetSecretId()
		}
		want := map[string]string{
			"s1": "three", "s1@2": "two", "s1@3": "three",
			"task any": "s1", "task second": "s1@2", "task third": "s1@3", "task gone": "s1@1",
		}
		if !maps.Equal(got, want) {
			t.Errorf("got %v", got)
		}
		// A version that says what the one before it said is another one, for tasks that get it in their files.
		for version := uint64(4); version <= 5; version++ {
			err := c.store.Update(t.Context(), "", func(tx store.Tx) error {
				secret, err := store.Get[*api.Secret](tx, "s1")
				if err != nil {
					return err
				}
				secret = proto.CloneOf(secret)
				before := &api.OldValue{Id: fmt.Sprint("o", version-1), OwnerId: "s1", Number: version - 1, Data: secret.Spec.Data}
				secret.Version, secret.Spec.Data = version, []byte("four")
				return errors.Join(tx.Update(secret), tx.Create(before))
			})
			if err != nil {
				t.Fatal(err)
			}
			m := <-stream
			if got := names(m); !slices.Equal(got, []string{"+secret s1"}) || m.GetChanges()[0].GetSecret().GetVersion() != version {
				t.Errorf("version %d: got %v, version %d", version, got, m.GetChanges()[0].GetSecret().GetVersion())
			}
		}
	})
}

func TestAssignments_StreamsOfASessionAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1")
		storetest.Create(t, c.store, node("n1"))
		a := c.connect("n1", "m1").mustRegister()
		first := a.assignments()
		<-first
		<-a.assignments()
		if m, ok := <-a.assignments(); ok {
			t.Errorf("the third stream got %v", m)
		}
		a.mustRegister()
		if m, ok := <-first; ok {
			t.Errorf("the former session's stream got %v", m)
		}
	})
}

func TestUpdateDescription_IsThereWhenAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1", "m2")
		storetest.Create(t, c.store, node("n1"))
		a := c.connect("n1", "m2").mustRegister()
		description := &api.NodeDescription{Hostname: "new", PeerAddress: "n1:2377", Images: []*api.ImageSummary{{Digest: "sha256:x"}}}
		_, err := a.client.UpdateDescription(a.ctx(), &api.UpdateDescriptionRequest{SessionId: a.sessionID, Description: description})
		if err != nil {
			t.Fatal(err)
		}
		if got := storetest.Get[*api.Node](t, c.store, "n1").GetDescription(); !proto.Equal(got, description) {
			t.Errorf("got %v", got)
		}
		big := &api.NodeDescription{EngineLabels: map[string]string{"x": string(make([]byte, 1<<20))}}
		_, err = a.client.UpdateDescription(a.ctx(), &api.UpdateDescriptionRequest{SessionId: a.sessionID, Description: big})
		wantCode(t, "too large a description", err, codes.InvalidArgument)
		for what, generic := range map[string][]*api.GenericResource{
			"too many kinds": make([]*api.GenericResource, 65),
			"too many ids":   {{Kind: "gpu", Ids: make([]string, 1025)}},
			"less than none": {{Kind: "gpu", Count: -1}},
		} {
			much := &api.NodeDescription{Resources: &api.Resources{Generic: generic}}
			_, err = a.client.UpdateDescription(a.ctx(), &api.UpdateDescriptionRequest{SessionId: a.sessionID, Description: much})
			wantCode(t, what, err, codes.InvalidArgument)
		}
	})
}

func TestLocateImage_NamesReadyHoldersButNotTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1")
		for _, id := range []string{"n1", "n2", "n3", "n4"} {
			n := node(id)
			n.Description = &api.NodeDescription{PeerAddress: id + ":2377", Images: []*api.ImageSummary{{Digest: "sha256:x"}}}
			n.Status.State = api.NodeState_NODE_STATE_READY
			if id == "n4" {
				n.Status.State = api.NodeState_NODE_STATE_DOWN
			}
			storetest.Create(t, c.store, n)
		}
		r, err := c.connect("n2", "m1").client.LocateImage(c.connect("n2", "m1").ctx(), &api.LocateImageRequest{Digest: "sha256:x"})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, h := range r.GetHolders() {
			got = append(got, h.GetNodeId()+" "+h.GetPeerAddress())
		}
		if want := []string{"n3 n3:2377", "n1 n1:2377"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestRun_EndsSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1")
		storetest.Create(t, c.store, node("n1"))
		a := c.connect("n1", "m1").mustRegister()
		c.managers["m1"].stop()
		if err := <-a.ended; err == nil || err == io.EOF {
			t.Errorf("got %v", err)
		}
	})
}

func TestNew_NeedsAStore(t *testing.T) {
	if _, err := dispatcher.New(dispatcher.Config{}); err == nil {
		t.Error("a config without store was accepted")
	}
}

// TestAssignments_WaitUntilTheStoreIsUpToDate: a node stops what the first message does not name, so a manager that may have
// missed something must not send it.
func TestAssignments_WaitUntilTheStoreIsUpToDate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1")
		storetest.Create(t, c.store, node("n1"), assignedTask("old", "n1"))
		c.setBehind(errors.New("no majority of managers answers"))
		stream := c.connect("n1", "m1").mustRegister().assignments()
		time.Sleep(5 * time.Second)
		if len(stream) != 0 {
			t.Fatalf("got %v from a manager that does not know whether that is all", names(<-stream))
		}
		storetest.Create(t, c.store, assignedTask("new", "n1")) // it learns of this one
		c.setBehind(nil)
		if m := <-stream; !m.GetComplete() || !slices.Equal(names(m), []string{"+task new", "+task old"}) {
			t.Errorf("got %v, complete %v; want both", names(m), m.GetComplete())
		}
	})
}
