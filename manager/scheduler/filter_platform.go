package scheduler

import (
	"slices"
	"strings"

	"github.com/skep-io/skep/manager/eligible"
)

// platform refuses nodes for which the pinned image is not made. While no node has the image, every platform will do.
type platform struct {
	c      *Core
	digest string
}

func (f platform) passes(n *node) bool {
	return eligible.Runs(n.api, f.c.images[f.digest])
}

func (f platform) key() string { return "platform" + f.digest }

func (platform) refusal(nodes int) string {
	return counted(nodes, "unsupported platform on 1 node", "unsupported platform on %d nodes")
}

func (platform) name() string { return "platform" }

func (f platform) detail(n *node) string {
	var made []string
	for _, p := range f.c.images[f.digest] {
		if text := p.GetOs() + "/" + p.GetArchitecture(); !slices.Contains(made, text) {
			made = append(made, text)
		}
	}
	own := n.api.GetDescription().GetPlatform()
	return "the image is for " + strings.Join(made, ", ") + ", the node is " + own.GetOs() + "/" + own.GetArchitecture()
}

func (platform) remedy(n *node) Remedy {
	own := n.api.GetDescription().GetPlatform()
	return Remedy{Text: "use an image for " + own.GetOs() + "/" + own.GetArchitecture(), cost: costMachine}
}
