package progress

import (
	"fmt"
	"strings"

	"github.com/skep-io/skep/api"
)

// maxNamed is the number of nodes that a rotation's last line names.
const maxNamed = 5

// RotationLines says how far a rotation of the root certificate is, whose digest is given: Docker's lines, and who is waited for.
func RotationLines(p *api.RootRotationProgress, digest string) []Line {
	lines := []Line{
		{Key: "desired root digest", Text: digest},
		rotationLine("rotated TLS certificates", p.GetIssued(), p.GetNodes()),
		rotationLine("rotated CA certificates", p.GetTrusting(), p.GetNodes()),
	}
	if p.GetAborted() {
		lines[0].Key = "going back to root digest"
	}
	if waited := WaitedFor(p); waited != "" {
		lines = append(lines, Line{Key: "waiting for", Text: waited})
	}
	return lines
}

func rotationLine(key string, done, all uint32) Line {
	return Line{Key: key, Text: fmt.Sprintf("%d/%d nodes", done, all), Bar: drawBar(int(done), max(int(all), 1))}
}

// WaitedFor names the nodes that a rotation waits for, those that are down as such, or returns "".
func WaitedFor(p *api.RootRotationProgress) string {
	var names []string
	for i, n := range p.GetWaiting() {
		if i == maxNamed {
			names = append(names, fmt.Sprintf("%d more", len(p.GetWaiting())-maxNamed))
			break
		}
		name := n.GetHostname()
		if name == "" {
			name = n.GetNodeId()
		}
		switch n.GetState() {
		case api.NodeState_NODE_STATE_DOWN:
			name += " (down)"
		case api.NodeState_NODE_STATE_UNKNOWN:
			name += " (never heard of)"
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}
