package volumebroker

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/volumename"
	"github.com/skep-io/skep/manager/lookup"
	"github.com/skep-io/skep/manager/reach"
	"github.com/skep-io/skep/store"
)

// Limits of a request.
const (
	maxLabels     = 64
	maxLabelBytes = 4096
	maxQuoted     = 128
	// maxNamed bounds how many nodes an error names.
	maxNamed = 5
)

// Subject is what a call is about, for the audit log.
type Subject struct {
	Name, NodeID string
	// Summary says what is done, in a few words.
	Summary string
}

// Config is what a Broker needs; all fields are required.
type Config struct {
	// NodeID is this manager's.
	NodeID string
	Store  *store.Store
	// Dial makes a connection to a node without waiting for it. The peer must prove to be the node.
	Dial reach.Dial
	// About puts into the audit log what a call does. It is called with the call's context.
	About func(ctx context.Context, s Subject)
}

// Broker serves Volumes.
type Broker struct {
	api.UnimplementedVolumesServer
	cfg Config
}

// New returns a Broker.
func New(cfg Config) (*Broker, error) {
	if cfg.NodeID == "" || cfg.Store == nil || cfg.Dial == nil || cfg.About == nil {
		return nil, errors.New("volumebroker: NodeID, Store, Dial and About are required")
	}
	return &Broker{cfg: cfg}, nil
}

// CreateVolume implements api.VolumesServer.
func (b *Broker) CreateVolume(ctx context.Context, r *api.CreateVolumeRequest) (*api.CreateVolumeResponse, error) {
	if err := errors.Join(checkName(r.GetVolume()), checkLabels(r.GetLabels())); err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	key := r.GetNode()
	if key == "" {
		key = b.cfg.NodeID
	}
	node, err := b.node(ctx, key)
	if err != nil {
		return nil, err
	}
	b.cfg.About(ctx, Subject{Name: r.GetVolume(), NodeID: node.GetId(), Summary: "created on node " + reach.Hostname(node)})
	var made *api.Volume
	err = b.call(ctx, node, func(ctx context.Context, agent api.NodeVolumesClient) error {
		answer, err := agent.CreateNodeVolume(ctx, &api.CreateNodeVolumeRequest{Name: r.GetVolume(), Labels: r.GetLabels()})
		made = answer.GetVolume()
		return err
	})
	if err != nil {
		return nil, err
	}
	if made.GetName() != r.GetVolume() {
		return nil, fault.New(fault.Unavailable, "node %s gave no answer that makes sense", reach.Hostname(node))
	}
	return &api.CreateVolumeResponse{Volume: of(node, made)}, nil
}

// RemoveVolume implements api.VolumesServer.
func (b *Broker) RemoveVolume(ctx context.Context, r *api.RemoveVolumeRequest) (*api.RemoveVolumeResponse, error) {
	if err := checkName(r.GetVolume()); err != nil {
		return nil, err
	}
	b.cfg.About(ctx, Subject{Name: r.GetVolume()})
	key := r.GetNode()
	if key == "" {
		var err error
		if key, err = b.holder(ctx, r.GetVolume()); err != nil {
			return nil, err
		}
	}
	node, err := b.node(ctx, key)
	if err != nil {
		return nil, err
	}
	b.cfg.About(ctx, Subject{Name: r.GetVolume(), NodeID: node.GetId(), Summary: "removed from node " + reach.Hostname(node)})
	err = b.call(ctx, node, func(ctx context.Context, agent api.NodeVolumesClient) error {
		_, err := agent.RemoveNodeVolume(ctx, &api.RemoveNodeVolumeRequest{Name: r.GetVolume()})
		return err
	})
	return &api.RemoveVolumeResponse{NodeId: node.GetId()}, err
}

// holder returns the id of the one node that has a volume (W1). A node that does not answer could have it, too (W2).
func (b *Broker) holder(ctx context.Context, name string) (string, error) {
	found, err := b.ListVolumes(ctx, &api.ListVolumesRequest{Volume: name})
	if err != nil {
		return "", err
	}
	if gaps := found.GetGaps(); len(gaps) > 0 {
		return "", fault.New(fault.Unavailable, "node %s may have a volume %s, too, but %s: say by --node which one you mean",
			gaps[0].GetNodeHostname(), name, gaps[0].GetReason())
	}
	switch volumes := found.GetVolumes(); len(volumes) {
	case 0:
		return "", fault.New(fault.NotFound, "no such volume: %s", name)
	case 1:
		return volumes[0].GetNodeId(), nil
	default:
		var on []string
		for _, v := range volumes[:min(len(volumes), maxNamed)] {
			on = append(on, v.GetNodeHostname())
		}
		if len(volumes) > maxNamed {
			on = append(on, "…")
		}
		return "", fault.New(fault.Invalid, "%d nodes have a volume %s (%s): say by --node which one you mean", len(volumes), name, strings.Join(on, ", "))
	}
}

func checkName(name string) error {
	if !volumename.Valid(name) {
		return fault.New(fault.Invalid, "volume: name %q is not 2 to 128 letters, digits, _, . and -, beginning with a letter or digit", fault.Clip(name, maxQuoted))
	}
	return nil
}

func checkLabels(labels map[string]string) error {
	size := 0
	for key, value := range labels {
		if strings.TrimSpace(key) == "" {
			return fault.New(fault.Invalid, "labels: a label has an empty key")
		}
		size += len(key) + len(value)
	}
	if len(labels) > maxLabels || size > maxLabelBytes {
		return fault.New(fault.Invalid, "labels: %d labels of %d bytes: at most %d of %d bytes together are allowed", len(labels), size, maxLabels, maxLabelBytes)
	}
	return nil
}

// view calls fn with a state that no manager is ahead of.
func (b *Broker) view(ctx context.Context, fn func(store.ReadTx) error) error {
	if err := b.cfg.Store.Barrier(ctx); err != nil {
		return fault.Wrap(fault.Unavailable, fmt.Errorf("read the cluster's state: %w", err))
	}
	return b.cfg.Store.View(fn)
}

func (b *Broker) node(ctx context.Context, key string) (node *api.Node, err error) {
	err = b.view(ctx, func(tx store.ReadTx) error {
		node, err = lookup.One[*api.Node](tx, key)
		return err
	})
	return node, err
}
