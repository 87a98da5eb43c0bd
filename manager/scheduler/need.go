package scheduler

import (
	"cmp"
	"encoding/binary"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/eligible"
)

// portKey is a port of a node.
type portKey struct {
	protocol api.Protocol
	number   uint32
}

// need is what a task takes up, and where it can run at all.
type need struct {
	cpus, memory int64
	generic      []*api.GenericResource
	ports        []portKey
	maxReplicas  uint64
	// digest is the pinned image's, or empty.
	digest string
	// options says that the task is to be isolated otherwise than by default.
	options bool
	// storage says that what the task writes is to be bounded.
	storage bool
	// processors are those that the task may run on, as the kernel lists them, or empty.
	processors string
	// bound is the id of the only node that will do, or empty.
	bound string
	// home is the id of the node with the volumes of the task's slot, or empty.
	home string
}

func needOf(t *api.Task) need {
	reserved := t.GetSpec().GetResources().GetReservations()
	n := need{
		cpus: max(reserved.GetNanoCpus(), 0), memory: max(reserved.GetMemoryBytes(), 0),
		generic:     genericNeed(reserved.GetGeneric()),
		maxReplicas: t.GetSpec().GetPlacement().GetMaxReplicas(), digest: eligible.Digest(t.GetSpec().GetContainer().GetImage()),
		processors: t.GetSpec().GetResources().GetCpusetCpus(),
		options:    t.GetSpec().GetContainer().GetPrivileges() != nil, storage: t.GetSpec().GetContainer().GetStorageSizeBytes() > 0,
		bound: t.GetBoundNodeId(), home: t.GetVolumeNodeId(),
	}
	for _, port := range t.GetEndpoint().GetPorts() {
		n.ports = append(n.ports, portKey{port.GetProtocol(), cmp.Or(port.GetPublishedPort(), port.GetTargetPort())})
	}
	return n
}

// key returns a text that is the same for equal needs with equal texts, and for no others.
func (n need) key(texts ...[]string) string {
	key := make([]byte, 0, 64)
	for _, number := range []uint64{uint64(n.cpus), uint64(n.memory), n.maxReplicas, uint64(len(n.ports))} {
		key = binary.AppendUvarint(key, number)
	}
	for _, port := range n.ports {
		key = binary.AppendUvarint(binary.AppendUvarint(key, uint64(port.protocol)), uint64(port.number))
	}
	key = binary.AppendUvarint(key, uint64(len(n.generic)))
	for _, r := range n.generic {
		key = binary.AppendUvarint(appendText(key, r.GetKind()), uint64(r.GetCount()))
	}
	flags := byte(0)
	if n.options {
		flags |= 1
	}
	if n.storage {
		flags |= 2
	}
	key = appendText(appendText(append(key, flags), n.digest), n.bound)
	key = appendText(appendText(key, n.home), n.processors)
	for _, list := range texts {
		key = binary.AppendUvarint(key, uint64(len(list)))
		for _, text := range list {
			key = appendText(key, text)
		}
	}
	return string(key)
}

func appendText(key []byte, text string) []byte {
	return append(binary.AppendUvarint(key, uint64(len(text))), text...)
}
