// Package reach connects a manager with the agents of nodes.
package reach

import (
	"cmp"
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/skep-io/skep/api"
)

// connectTimeout bounds how long a node may take to be connected: a round trip and a handshake.
const connectTimeout = 5 * time.Second

// Dial makes a connection to a node without waiting for it. The peer must prove to be the node.
type Dial func(address, nodeID string, options ...grpc.DialOption) (*grpc.ClientConn, error)

// Problem is why a node can't be asked, in words that its name goes before.
type Problem string

// The problems that there are.
const (
	Removed Problem = "was removed from the swarm"
	Down    Problem = "is down"
	Nowhere Problem = "has not said where it can be reached"
	Refuses Problem = "does not accept the connection"
	Silent  Problem = "does not answer"
)

func (p Problem) Error() string { return "the node " + string(p) }

// Why says why Connect did not connect to a node whose name was said.
func Why(err error) string {
	if problem := Problem(""); errors.As(err, &problem) {
		return "it " + string(problem)
	}
	return err.Error()
}

// Hostname names a node for people.
func Hostname(n *api.Node) string { return cmp.Or(n.GetDescription().GetHostname(), n.GetId()) }

// Address is where a node's agent can be reached, unless it is known that it can't: then the error is a Problem. A node that is nil is
// one that was removed.
func Address(node *api.Node) (string, error) {
	address := node.GetDescription().GetPeerAddress()
	switch {
	case node == nil:
		return "", Removed
	case node.GetStatus().GetState() == api.NodeState_NODE_STATE_DOWN:
		return "", Down
	case address == "":
		return "", Nowhere
	}
	return address, nil
}

// Connect connects to a node, and waits until the connection is there, or it is known that it won't be: the error may be a Problem. The
// caller closes the connection.
func Connect(ctx context.Context, dial Dial, node *api.Node, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	address, err := Address(node)
	if err != nil {
		return nil, err
	}
	conn, err := dial(address, node.GetId(), options...)
	if err != nil {
		return nil, err
	}
	if err := ready(ctx, conn); err != nil {
		_ = conn.Close() // nothing was sent
		return nil, err
	}
	return conn, nil
}

func ready(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, Silent)
	defer cancel()
	conn.Connect()
	for {
		state := conn.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.TransientFailure, connectivity.Shutdown:
			return Refuses
		}
		if !conn.WaitForStateChange(ctx, state) {
			return context.Cause(ctx)
		}
	}
}
