package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/e2e/lab"
	"github.com/skep-io/skep/internal/fault"
)

// client writes to a swarm through whichever manager answers, and repeats a request until it knows what became of it. It is
// for one goroutine.
type client struct {
	controls []api.ControlClient
	at       int
	random   *rand.Rand
	// passes says of an error that would be final that it passes; nil is never.
	passes func(error) bool
}

// newClient returns a client of the managers; the seed makes its choices.
func newClient(t *testing.T, seed uint64, managers ...*lab.Machine) *client {
	t.Helper()
	c := &client{random: rand.New(rand.NewPCG(seed, 0))}
	for _, m := range managers {
		conn, err := grpc.NewClient("unix://"+m.Socket(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, MaxDelay: 200 * time.Millisecond}, MinConnectTimeout: maxTry,
			}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		c.controls = append(c.controls, api.NewControlClient(conn))
	}
	return c
}

// maxTry bounds one try of a request, which is sometimes less than it takes: then the answer is lost and the request repeated.
const maxTry = 3 * time.Second

// do calls fn with one manager after the other, and one request id, until the answer is final.
func (c *client) do(ctx context.Context, fn func(context.Context, api.ControlClient) error) error {
	ctx = metadata.AppendToOutgoingContext(ctx, "skep-request-id", fmt.Sprintf("%016x", c.random.Uint64()))
	for {
		try, cancel := context.WithTimeout(ctx, time.Duration(c.random.Int64N(int64(maxTry))))
		err := fn(try, c.controls[c.at])
		cancel()
		if err == nil || !c.again(err) {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w, after %w", ctx.Err(), err)
		}
		c.at = (c.at + 1) % len(c.controls)
		pause(ctx)
	}
}

// again reports whether a request may end otherwise when it is repeated.
func (c *client) again(err error) bool {
	kind := fault.KindOf(err)
	return kind == fault.Unavailable || kind == fault.NotLeader || c.passes != nil && c.passes(err)
}

func (c *client) createSecret(ctx context.Context, name string, data []byte) (secret *api.Secret, err error) {
	spec := &api.SecretSpec{Annotations: &api.Annotations{Name: name}, Data: data}
	err = c.do(ctx, func(ctx context.Context, control api.ControlClient) error {
		response, err := control.CreateSecret(ctx, &api.CreateSecretRequest{Spec: spec})
		secret = response.GetSecret()
		return err
	})
	return secret, err
}

func (c *client) removeSecret(ctx context.Context, name string) error {
	return c.do(ctx, func(ctx context.Context, control api.ControlClient) error {
		_, err := control.RemoveSecret(ctx, &api.RemoveSecretRequest{Secret: name})
		return err
	})
}

func (c *client) createService(ctx context.Context, name string) (service *api.Service, err error) {
	spec := &api.ServiceSpec{
		Annotations: &api.Annotations{Name: name}, Replicated: &api.ReplicatedService{},
		Task: &api.TaskSpec{Container: &api.ContainerSpec{Image: "skep.local/hello"}},
	}
	err = c.do(ctx, func(ctx context.Context, control api.ControlClient) error {
		response, err := control.CreateService(ctx, &api.CreateServiceRequest{Spec: spec})
		service = response.GetService()
		return err
	})
	return service, err
}

// setLabel changes a node's label from what it is, and tries again when somebody else changed the node meanwhile.
func (c *client) setLabel(ctx context.Context, node, label string, next func(string) string) error {
	for {
		var found *api.Node
		err := c.do(ctx, func(ctx context.Context, control api.ControlClient) error {
			response, err := control.GetNode(ctx, &api.GetNodeRequest{Node: node})
			found = response.GetNode()
			return err
		})
		if err != nil {
			return err
		}
		spec := proto.CloneOf(found.GetSpec())
		if spec.Annotations == nil {
			spec.Annotations = &api.Annotations{}
		}
		if spec.Annotations.Labels == nil {
			spec.Annotations.Labels = map[string]string{}
		}
		spec.Annotations.Labels[label] = next(spec.Annotations.Labels[label])
		err = c.do(ctx, func(ctx context.Context, control api.ControlClient) error {
			_, err := control.UpdateNode(ctx, &api.UpdateNodeRequest{NodeId: found.GetId(), Version: found.GetMeta().GetVersion(), Spec: spec})
			return err
		})
		if fault.KindOf(err) != fault.Conflict {
			return err
		}
	}
}

// leaderOf returns the machine that leads.
func (c *client) leaderOf(ctx context.Context, managers ...*lab.Machine) (*lab.Machine, error) {
	for {
		var name string
		err := c.do(ctx, func(ctx context.Context, control api.ControlClient) error {
			response, err := control.ListNodes(ctx, &api.ListNodesRequest{})
			for _, node := range response.GetNodes() {
				if node.GetManagerStatus().GetLeader() {
					name = node.GetDescription().GetHostname()
				}
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, m := range managers {
			if m.Name == name {
				return m, nil
			}
		}
		pause(ctx)
	}
}
