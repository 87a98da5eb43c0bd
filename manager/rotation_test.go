package manager_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

// follower is a node's side of a rotation: a session with a manager, and what a daemon does with what it hears.
type follower struct {
	swarm    *swarm
	dial     func(name, address string, options ...grpc.DialOption) (*grpc.ClientConn, error)
	id       *ca.Identity
	renewer  *ca.Renewer
	managers []string
	stop     func()
}

// follow runs the node's side of a member, or of a worker.
func (s *swarm) follow(m *member, managers ...string) *follower {
	f := &follower{swarm: s, dial: m.dialNode, id: m.identity, managers: managers}
	f.renewer = ca.NewRenewer(ca.RenewerConfig{
		Identity: f.id, Renew: f.renew, Save: func(ca.Credentials) error { return nil }, Logger: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() { _ = f.renewer.Run(ctx) })
	parts.Go(func() { f.run(ctx) })
	f.stop = sync.OnceFunc(func() {
		cancel()
		parts.Wait()
	})
	s.t.Cleanup(f.stop)
	return f
}

// worker adds a node that is no manager, and its side.
func (s *swarm) worker(managers ...string) *follower {
	s.t.Helper()
	id := object.NewID()
	storetest.Create(s.t, s.leader(s.members...).store, &api.Node{
		Id: id, Role: api.Role_ROLE_WORKER, Spec: &api.NodeSpec{DesiredRole: api.Role_ROLE_WORKER},
	})
	name := ca.Name{ClusterID: s.founding.Cluster.GetId(), NodeID: id, Role: api.Role_ROLE_WORKER}
	return s.follow(s.newMember("", catest.Credentials(s.t, s.root, name, 0)), managers...)
}

// each calls fn with a connection to one manager after the other until it succeeds.
func (f *follower) each(ctx context.Context, fn func(context.Context, *grpc.ClientConn) error) error {
	var errs []error
	for _, address := range f.managers {
		conn, err := f.dial(ca.OUManager, address)
		if err == nil {
			err = fn(ctx, conn)
			_ = conn.Close()
		}
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (f *follower) renew(ctx context.Context) (renewed ca.Credentials, err error) {
	err = f.each(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		renewed, err = ca.RenewOver(ctx, conn, f.id)
		return err
	})
	return renewed, err
}

// run has one session after the other.
func (f *follower) run(ctx context.Context) {
	for ctx.Err() == nil {
		_ = f.each(ctx, f.session)
		select {
		case <-ctx.Done():
		case <-time.After(3 * time.Second): // a node may not register more often
		}
	}
}

func (f *follower) session(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client := api.NewDispatcherClient(conn)
	stream, err := client.Session(ctx, &api.SessionRequest{Description: &api.NodeDescription{Hostname: "n"}, Tls: f.id.TLS()})
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	f.hear(first)
	var speaking sync.WaitGroup
	defer speaking.Wait()
	defer cancel()
	speaking.Go(func() {
		defer cancel()
		f.speak(ctx, client, first.GetSessionId())
	})
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		f.hear(r)
	}
}

func (f *follower) hear(r *api.SessionResponse) {
	if err := f.renewer.Follow(r.GetRevocationsVersion(), r.GetRootCertificate(), r.GetNode().GetRenewal()); err != nil {
		f.swarm.t.Logf("node %s: %v", f.id.NodeID(), err)
	}
}

// speak tells the manager that the node lives, and what it has whenever that changes.
func (f *follower) speak(ctx context.Context, client api.DispatcherClient, session string) {
	var err error
	for err == nil && ctx.Err() == nil {
		changed := f.id.Watch()
		_, err = client.UpdateDescription(ctx, &api.UpdateDescriptionRequest{SessionId: session, Tls: f.id.TLS()})
		for same := true; same && err == nil && ctx.Err() == nil; {
			select {
			case <-ctx.Done():
			case <-changed:
				same = false
			case <-time.After(4 * time.Second):
				_, err = client.Heartbeat(ctx, &api.HeartbeatRequest{SessionId: session})
			}
		}
	}
}

// rotate asks for a rotation, as a manager that forwards a person's wish does.
func (m *member) rotate(through *member, request *api.RotateRootCARequest) (*api.RotateRootCAResponse, error) {
	conn := m.dial(through.identity.NodeID(), through.address)
	defer conn.Close()
	return api.NewControlClient(conn).RotateRootCA(m.swarm.t.Context(), request)
}

// rootOf returns the root as a manager has it.
func rootOf(m *member) *api.RootCA {
	return storetest.List[*api.Cluster](m.swarm.t, m.store)[0].GetRootCa()
}

// progress counts the nodes of a rotation that were asked, and that are done.
func progress(m *member) (asked, done int) {
	root := rootOf(m)
	target, err := ca.TargetOf(root)
	if err != nil {
		m.swarm.t.Fatal(err)
	}
	for _, n := range storetest.List[*api.Node](m.swarm.t, m.store) {
		if n.GetRenewal().GetRotationId() == root.GetRotation().GetId() {
			asked++
		}
		if target.Done(n) {
			done++
		}
	}
	return asked, done
}

// kill stops a manager so that nobody hears of it: neither by it nor from it comes another byte.
func (m *member) kill() {
	m.silence()
	_ = m.stop()
}

// crew is three managers and two workers, each with its node's side.
type crew struct {
	*swarm
	managers  []*member
	followers map[string]*follower // by node id
	addresses []string
}

func newCrew(t *testing.T) *crew {
	t.Helper()
	c := &crew{managers: three(t), followers: map[string]*follower{}, addresses: []string{"m1:2377", "m2:2377", "m3:2377"}}
	c.swarm = c.managers[0].swarm
	for _, m := range c.managers {
		c.followers[m.identity.NodeID()] = c.follow(m, c.addresses...)
	}
	for range 2 {
		f := c.worker(c.addresses...)
		c.followers[f.id.NodeID()] = f
	}
	c.awaitWords()
	return c
}

// awaitWords waits until all nodes have said what they have.
func (c *crew) awaitWords() {
	c.t.Helper()
	waitFor(c.t, "all nodes to say what they have", func() bool {
		for _, n := range storetest.List[*api.Node](c.t, c.managers[0].store) {
			if n.GetTls() == nil || n.GetStatus().GetState() != api.NodeState_NODE_STATE_READY {
				return false
			}
		}
		return true
	})
}

// finished checks that a rotation came to its end everywhere: one root, fresh tokens for it, and everybody reaches everybody.
func (c *crew) finished(root []byte) {
	t := c.t
	t.Helper()
	for _, m := range c.managers {
		waitFor(t, "the end of the rotation on "+m.address, func() bool {
			now := rootOf(m)
			return now.GetRotation() == nil && string(now.GetCertificate()) == string(root)
		})
	}
	roots, err := ca.ParseRoots(root)
	if err != nil {
		t.Fatal(err)
	}
	for id, f := range c.followers {
		waitFor(t, "node "+id+" to trust the root alone", func() bool { return string(f.id.RootPEM()) == string(root) })
		if f.id.Current().Chain()[0].CheckSignatureFrom(roots[0]) != nil {
			t.Errorf("the certificate of node %s is by another root", id)
		}
	}
	tokens := storetest.List[*api.Cluster](t, c.managers[0].store)[0].GetJoinTokens()
	for _, text := range []string{tokens.GetWorker(), tokens.GetManager()} {
		if parsed, err := token.Parse(text); err != nil || parsed.Digest() != token.DigestOf(roots) {
			t.Errorf("a join token is for another root, or none: %v", err)
		}
	}
	for i, m := range c.managers {
		if err := c.managers[(i+1)%len(c.managers)].createSecret(object.NewID(), m); err != nil {
			t.Errorf("through %s: %v", m.address, err)
		}
	}
}

func TestRotation_EndsWithOneRootEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t)
		begun, err := c.managers[1].rotate(c.managers[2], &api.RotateRootCARequest{})
		if err != nil {
			t.Fatal(err)
		}
		c.finished(begun.GetCertificate())
	})
}

// The leader dies at each step of a rotation, and is waited for: it is a node, too.
func TestRotation_SurvivesTheLossOfItsLeaderAtEachStep(t *testing.T) {
	for _, step := range []struct {
		name    string
		reached func(m *member) bool
	}{
		{"stored", func(m *member) bool { return rootOf(m).GetRotation() != nil }},
		{"asked", func(m *member) bool { asked, _ := progress(m); return asked > 0 }},
		{"first done", func(m *member) bool { _, done := progress(m); return done > 0 }},
		{"most done", func(m *member) bool { _, done := progress(m); return done > 3 }},
		{"finished", func(m *member) bool { return rootOf(m).GetRotation() == nil }},
	} {
		t.Run(step.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCrew(t)
				leader := c.leader(c.managers...)
				begun, err := leader.rotate(leader, &api.RotateRootCARequest{})
				if err != nil {
					t.Fatal(err)
				}
				for !step.reached(leader) {
					changes, err := leader.store.Watch(t.Context(), 0, object.KindCluster, object.KindNode)
					if err != nil {
						t.Fatal(err)
					}
					if step.reached(leader) {
						break
					}
					if _, err := changes.Next(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				id := leader.identity.NodeID()
				c.followers[id].stop()
				leader.kill()
				var others []*member
				for _, m := range c.managers {
					if m != leader {
						others = append(others, m)
					}
				}
				next := c.leader(others...)
				<-time.After(time.Minute)
				_, done := progress(next)
				if over := rootOf(next).GetRotation() == nil; !over && done < 4 {
					t.Errorf("without the manager that is down %d of 5 nodes are done", done)
				}
				leader.revive()
				c.followers[id] = c.follow(leader, c.addresses...)
				c.finished(begun.GetCertificate())
			})
		})
	}
}

func TestRotation_IsSupersededAndAborted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t)
		before := rootOf(c.managers[0]).GetCertificate()
		down := c.worker(c.addresses...)
		c.followers[down.id.NodeID()] = down
		waitFor(t, "the sixth node", func() bool {
			return storetest.Get[*api.Node](t, c.leader(c.managers...).store, down.id.NodeID()).GetTls() != nil
		})
		down.stop()
		waitFor(t, "the sixth node to be down", func() bool {
			n := storetest.Get[*api.Node](t, c.leader(c.managers...).store, down.id.NodeID())
			return n.GetStatus().GetState() == api.NodeState_NODE_STATE_DOWN
		})
		most := func() bool { _, done := progress(c.managers[0]); return done == 5 }
		for range 2 {
			if _, err := c.managers[0].rotate(c.managers[0], &api.RotateRootCARequest{}); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "all nodes but the one that is down", most)
		}
		if _, err := c.managers[0].rotate(c.managers[1], &api.RotateRootCARequest{Abort: true}); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the way back", func() bool { return rootOf(c.managers[0]).GetRotation() == nil })
		if _, err := c.managers[0].rotate(c.managers[1], &api.RotateRootCARequest{Abort: true}); err == nil {
			t.Error("a rotation that is over was aborted")
		}
		begun, err := c.managers[0].rotate(c.managers[0], &api.RotateRootCARequest{})
		if err != nil {
			t.Fatal(err)
		}
		waitFor(t, "all nodes but the one that is down", most)
		if string(rootOf(c.managers[0]).GetCertificate()) != string(before) {
			t.Error("the rotation did not wait for the node that is down")
		}
		c.followers[down.id.NodeID()] = c.follow(&member{swarm: c.swarm, identity: down.id}, c.addresses...)
		c.finished(begun.GetCertificate())
	})
}
