package agent

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/skep-io/skep/agent/images"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/internal/cpulist"
	"github.com/skep-io/skep/runtime/lsm"
	"github.com/skep-io/skep/runtime/quota"
)

const (
	// nanoCPU is one CPU in the unit of api.Resources.
	nanoCPU = 1_000_000_000
	// maxTold bounds the volumes that a node tells of: a description is in the store of every manager.
	maxTold = 512
	// describeTimeout bounds the time to list images.
	describeTimeout = 5 * time.Second
	// connectTimeout bounds one try to connect to another node: there may be others to ask.
	connectTimeout = 5 * time.Second
	// passthrough makes gRPC hand addresses to the dialer as they are.
	passthrough = "passthrough:///"
)

// Resources returns what this machine has.
func Resources() (*api.Resources, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return nil, fmt.Errorf("read the machine's memory: %w", err)
	}
	return &api.Resources{
		NanoCpus:    int64(runtime.NumCPU()) * nanoCPU,
		MemoryBytes: int64(uint64(info.Totalram) * uint64(info.Unit)),
	}, nil
}

// describe returns what this node says of itself.
func (a *Agent) describe() *api.NodeDescription {
	d := &api.NodeDescription{
		Hostname: a.cfg.Hostname, Platform: &api.Platform{Os: runtime.GOOS, Architecture: runtime.GOARCH},
		EngineVersion: a.cfg.Version, EngineLabels: a.cfg.Labels, PeerAddress: a.cfg.PeerAddress,
		Isolation: lsm.Isolation(), StorageLimits: quota.Check(a.cfg.DataDir) == nil,
	}
	var err error
	if d.Resources, err = Resources(); err != nil {
		a.log.Error("the node is described without its resources", "error", err)
		d.Resources = &api.Resources{}
	}
	d.Resources.Generic = a.cfg.Generic
	if d.OnlineCpus, err = cpulist.Online(); err != nil {
		a.log.Error("the node is described without the numbers of its processors", "error", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), describeTimeout)
	defer cancel()
	if d.Images, err = images.Summaries(ctx, a.cfg.Images); err != nil {
		a.log.Error("the node is described without its images", "error", err)
	}
	if d.Volumes, err = a.volumes.Store.Names(); err != nil {
		a.log.Error("the node is described without its volumes", "error", err)
	}
	d.Volumes = d.Volumes[:min(len(d.Volumes), maxTold)]
	return d
}

// dialManager returns a connection to any manager at an address.
func (a *Agent) dialManager(address string) (*grpc.ClientConn, error) {
	return a.dial(ca.OUManager, address)
}

// dialNode returns a connection to a certain node.
func (a *Agent) dialNode(nodeID, address string) (*grpc.ClientConn, error) {
	return a.dial(nodeID, address)
}

// dial returns a connection to an address that must prove a name. Nodes talk to each other directly: proxies that the environment
// names are for the outside.
func (a *Agent) dial(name, address string) (*grpc.ClientConn, error) {
	if address == a.cfg.PeerAddress && a.cfg.LocalAddress != "" {
		address = a.cfg.LocalAddress
	}
	return grpc.NewClient(passthrough+address,
		grpc.WithTransportCredentials(a.cfg.Identity.ClientCredentials(name)), grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectTimeout}))
}
