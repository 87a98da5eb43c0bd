package network

import (
	"fmt"

	"github.com/vishvananda/netlink"

	"github.com/skep-io/skep/api"
)

const (
	bitsPerByte = 8
	// burstPart and queuePart are the parts of a second's bytes that may be sent at once, and that may wait; more is dropped.
	burstPart, queuePart = 100, 10
	// minBurst and minQueue are their least, in frames.
	minBurst, minQueue = 2, 10
)

// shaper is the token bucket (tc-tbf(8)) that holds what an interface sends to a rate in bits a second.
func shaper(link netlink.Link, rate uint64) *netlink.Tbf {
	bytes, frame := rate/bitsPerByte, uint64(link.Attrs().MTU)
	burst := max(bytes/burstPart, minBurst*frame)
	return &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		Rate:       bytes,
		Buffer:     netlink.Xmittime(bytes, uint32(min(burst, 1<<31))), // the kernel takes it as time
		Limit:      uint32(min(burst+max(bytes/queuePart, minQueue*frame), 1<<31)),
	}
}

// limitIn holds what a container receives to its rate, at the node's end of its veth pair. It goes with that.
func limitIn(veth netlink.Link, rate *api.NetworkRate) error {
	if rate.GetInBps() == 0 {
		return nil
	}
	if err := netlink.QdiscReplace(shaper(veth, rate.GetInBps())); err != nil {
		return fmt.Errorf("limit what the container receives: %w", err)
	}
	return nil
}

// limitOut holds what a container sends to its rate, at its own interface, where a full queue makes its programs wait instead of losing
// packets. Without CAP_NET_ADMIN a container can't change it.
func limitOut(h *netlink.Handle, link netlink.Link, rate *api.NetworkRate) error {
	if rate.GetOutBps() == 0 {
		return nil
	}
	if err := h.QdiscReplace(shaper(link, rate.GetOutBps())); err != nil {
		return fmt.Errorf("limit what the container sends: %w", err)
	}
	return nil
}
