package day

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// nemesis does what a schedule says: people's wishes, and what befalls machines.
type nemesis struct {
	*world
	power *rand.Rand // what losses of power leave on disks
	apart []string   // machines that are cut off
	// followers follow events, made and gone are the services that were created and removed since they began.
	followers  []*follower
	made, gone map[string]int
}

// run does the steps one after the other, until something does not hold.
func (n *nemesis) run(steps []step) {
	for _, s := range steps {
		if wait := time.Until(n.began.Add(s.at)); wait > 0 {
			_ = pause(n.t.Context(), wait)
		}
		if !n.intact() {
			return
		}
		_, _ = fmt.Fprintf(n.did, "%s %s", n.at(time.Now()), s.what)
		if err := s.do(n); err != nil {
			n.violated("%s: %v", s.what, err)
		}
	}
}

// edit changes a service as people do: they read it, change it, and try again if somebody else was faster.
func (n *nemesis) edit(name string, change func(*api.ServiceSpec)) error {
	for {
		err := n.ask(func(ctx context.Context, c api.ControlClient) error {
			got, err := c.GetService(ctx, &api.GetServiceRequest{Service: name})
			if err != nil {
				return err
			}
			change(got.GetService().GetSpec())
			_, err = c.UpdateService(ctx, &api.UpdateServiceRequest{
				ServiceId: got.GetService().GetId(), Version: got.GetService().GetMeta().GetVersion(), Spec: got.GetService().GetSpec(),
			})
			return err
		})
		if fault.KindOf(err) != fault.Conflict {
			return err
		}
	}
}

// create makes a service, and remove ends it.
func (n *nemesis) create(spec *api.ServiceSpec) error {
	n.made[spec.GetAnnotations().GetName()]++
	return n.ask(func(ctx context.Context, c api.ControlClient) error {
		_, err := c.CreateService(ctx, &api.CreateServiceRequest{Spec: proto.CloneOf(spec)})
		return err
	})
}

func (n *nemesis) remove(name string) error {
	n.gone[name]++
	return n.ask(func(ctx context.Context, c api.ControlClient) error {
		_, err := c.RemoveService(ctx, &api.RemoveServiceRequest{Service: name})
		return err
	})
}

// editNode changes a node, and notes in the books what was wanted.
func (n *nemesis) editNode(name string, change func(*api.NodeSpec)) error {
	id := n.machine(name).id()
	for {
		err := n.ask(func(ctx context.Context, c api.ControlClient) error {
			got, err := c.GetNode(ctx, &api.GetNodeRequest{Node: id})
			if err != nil {
				return err
			}
			spec := got.GetNode().GetSpec()
			change(spec)
			settle := n.books.intend(id, spec)
			_, err = c.UpdateNode(ctx, &api.UpdateNodeRequest{NodeId: id, Version: got.GetNode().GetMeta().GetVersion(), Spec: spec})
			if err == nil {
				settle()
			}
			return err
		})
		if fault.KindOf(err) != fault.Conflict {
			return err
		}
	}
}

// down ends a machine's daemon: in good order, by SIGKILL, or with the machine's power.
func (n *nemesis) down(name string, how string) error {
	m := n.machine(name)
	n.books.unreachable(m)
	switch how {
	case "stop":
		return m.stop()
	case "kill":
		return m.kill(nil)
	default:
		return m.kill(n.power)
	}
}

func (n *nemesis) up(name string) error {
	m := n.machine(name)
	if m.up() {
		return nil
	}
	if err := m.start(); err != nil {
		return err
	}
	if !slices.Contains(n.apart, name) {
		n.books.reachable(m)
	}
	return nil
}

// createSecret makes a secret, and updateSecret gives it another value: the services that use it are updated.
func (n *nemesis) createSecret(name string) (id string, err error) {
	err = n.ask(func(ctx context.Context, c api.ControlClient) error {
		created, err := c.CreateSecret(ctx, &api.CreateSecretRequest{Spec: &api.SecretSpec{Annotations: &api.Annotations{Name: name}, Data: []byte("value of " + name)}})
		id = created.GetSecret().GetId()
		return err
	})
	return id, err
}

func (n *nemesis) updateSecret(name, value string) error {
	return n.ask(func(ctx context.Context, c api.ControlClient) error {
		_, err := c.UpdateSecret(ctx, &api.UpdateSecretRequest{Secret: name, Change: &api.ValueChange{Data: []byte(value)}})
		return err
	})
}

// service asks about a service as it is at the end of a name: to remove it, to pause or resume its update, to roll it back.
func (n *nemesis) service(call func(context.Context, api.ControlClient) error) error {
	err := n.ask(call)
	switch fault.KindOf(err) {
	case fault.Precondition, fault.Conflict: // there is nothing to pause, to resume or to go back to
		return nil
	}
	return err
}

// replace has a machine that does not run come back as another node, with an empty disk, once people removed the one that it was.
func (n *nemesis) replace(name string) error {
	m := n.machine(name)
	m.executor.wipe()
	err := n.ask(func(ctx context.Context, c api.ControlClient) error {
		_, err := c.RemoveNode(ctx, &api.RemoveNodeRequest{Node: m.id(), Force: true})
		return err
	})
	if err == nil {
		err = errors.Join(os.RemoveAll(m.dir), os.Mkdir(m.dir, 0o700))
	}
	if err == nil {
		err = n.admit(m, api.Role_ROLE_WORKER)
	}
	if err != nil {
		return err
	}
	return n.up(name)
}

// cut isolates machines from all others, and mend ends all such cuts.
func (n *nemesis) cut(names ...string) error {
	n.apart = names
	for _, name := range names {
		n.books.unreachable(n.machine(name))
	}
	n.network.isolate(n.names(), names...)
	return nil
}

func (n *nemesis) mend() error {
	n.network.mend()
	n.apart = nil
	for _, m := range n.machines {
		if m.up() {
			n.books.reachable(m)
		}
	}
	return nil
}

// blackout ends all managers, and starts them again after a while: nobody takes wishes in between, and nodes go on.
func (n *nemesis) blackout(how string, lasts time.Duration) error {
	n.unfollow()
	var errs []error
	for _, m := range n.machines[:managers] {
		errs = append(errs, n.down(m.name, how))
	}
	_ = pause(n.t.Context(), lasts)
	for _, m := range n.machines[:managers] {
		errs = append(errs, n.up(m.name))
	}
	n.follow()
	return errors.Join(errs...)
}

// transfer makes another manager lead.
func (n *nemesis) transfer() error {
	if leader := n.leader(); leader != nil {
		ctx, cancel := context.WithTimeout(n.t.Context(), patience)
		defer cancel()
		_ = leader.manager.store.TransferLeadership(ctx) // that nobody could take over is no defect
	}
	return nil
}

// settleTime is how long the swarm may take to be as people want it once nothing disturbs it: updates take it that have many slots to go.
const settleTime = 10 * time.Minute

// settle waits until everything is as people want it, and looks whether it stays so.
func (n *nemesis) settle(wishes map[string]int) error {
	unsettled := func() string { return n.unsettled(wishes) }
	if !n.await(settleTime, "everything to be as it should", unsettled) {
		return nil
	}
	const stays = 20 * time.Second
	_ = pause(n.t.Context(), stays)
	if missing := unsettled(); missing != "" {
		n.violated("nothing disturbed it, and after %s it is not as it was: %s", stays, missing)
	}
	n.checkEvents()
	return nil
}
