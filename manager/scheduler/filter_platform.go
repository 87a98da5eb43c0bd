package scheduler

import (
	"slices"

	"github.com/skep-io/skep/api"
)

// platform refuses nodes for which the pinned image is not made. While no node has the image, every platform will do.
type platform struct {
	c      *Core
	digest string
}

func (f platform) passes(n *node) bool {
	platforms := f.c.images[f.digest]
	if len(platforms) == 0 {
		return true
	}
	own := n.api.GetDescription().GetPlatform()
	return slices.ContainsFunc(platforms, func(p *api.Platform) bool {
		return p.GetOs() == own.GetOs() && p.GetArchitecture() == own.GetArchitecture()
	})
}

func (f platform) key() string { return "platform" + f.digest }

func (platform) refusal(nodes int) string {
	return counted(nodes, "unsupported platform on 1 node", "unsupported platform on %d nodes")
}
