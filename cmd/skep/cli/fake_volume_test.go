package cli_test

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// CreateVolume makes a volume on a node of any name; one that is named busy is in use.
func (f *fake) CreateVolume(_ context.Context, r *api.CreateVolumeRequest) (*api.CreateVolumeResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := &api.Volume{
		Name: r.GetVolume(), Labels: r.GetLabels(), CreatedAt: timestamppb.New(born()), NodeId: "node1", NodeHostname: "m1",
		Mountpoint: "/var/lib/skep/volumes/" + r.GetVolume() + "/data",
	}
	if r.GetNode() != "" {
		v.NodeId, v.NodeHostname = "id-"+r.GetNode(), r.GetNode()
	}
	if strings.HasPrefix(v.Name, "busy") {
		v.TaskIds = []string{"task1"}
	}
	f.volumes = append(f.volumes, v)
	return &api.CreateVolumeResponse{Volume: v}, nil
}

func (f *fake) ListVolumes(_ context.Context, r *api.ListVolumesRequest) (*api.ListVolumesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &api.ListVolumesResponse{}
	for _, v := range f.volumes {
		if (r.GetVolume() == "" || r.GetVolume() == v.GetName()) && onNode(v, r.GetNode()) {
			out.Volumes = append(out.Volumes, v)
		}
	}
	if f.statsGap != "" {
		out.Gaps = append(out.Gaps, &api.VolumeGap{NodeId: "node2", NodeHostname: "w1", Reason: f.statsGap})
	}
	return out, nil
}

func onNode(v *api.Volume, node string) bool {
	return node == "" || node == v.GetNodeHostname() || node == v.GetNodeId()
}

func (f *fake) RemoveVolume(_ context.Context, r *api.RemoveVolumeRequest) (*api.RemoveVolumeResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.volumes, func(v *api.Volume) bool { return v.GetName() == r.GetVolume() && onNode(v, r.GetNode()) })
	if i < 0 {
		return nil, fault.New(fault.NotFound, "no such volume: %s", r.GetVolume())
	}
	if len(f.volumes[i].GetTaskIds()) > 0 {
		return nil, fault.New(fault.Precondition, "volume %s is in use by task task1 on this node", r.GetVolume())
	}
	f.volumes = slices.Delete(f.volumes, i, i+1)
	return &api.RemoveVolumeResponse{}, nil
}
