package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/api"
)

const (
	// containerInterface is the name of a container's interface.
	containerInterface = "eth0"
	// defaultMTU is used when the node has no default route to take it from.
	defaultMTU = 1500
	// sysctlRoot is where the parameters of the calling thread's network namespace are.
	sysctlRoot = "/proc/sys/net/ipv4"
	// forwardParameter says whether packets for others are forwarded.
	forwardParameter = "ip_forward"
)

// ensureBridge makes the bridge as it is to be, and says whether packets were not forwarded before.
func ensureBridge(name string, gateway netip.Prefix) (turnedOn bool, err error) {
	link, err := bridgeLink(name)
	if err != nil {
		return false, fmt.Errorf("make bridge %s: %w", name, err)
	}
	address := &netlink.Addr{IPNet: ipNet(gateway)}
	if err := netlink.AddrReplace(link, address); err != nil {
		return false, fmt.Errorf("give bridge %s the address %s: %w", name, gateway, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return false, fmt.Errorf("set bridge %s up: %w", name, err)
	}
	// Published ports work on 127.0.0.1 only if the bridge routes it; table ip skep keeps containers from using that.
	if _, err := setSysctl("conf/"+name+"/route_localnet", "1"); err != nil {
		return false, err
	}
	return setSysctl(forwardParameter, "1")
}

func bridgeLink(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return nil, err
		}
		return netlink.LinkByName(name)
	case err != nil:
		return nil, err
	case link.Type() != "bridge":
		return nil, fmt.Errorf("there is an interface of that name that is no bridge but %s", link.Type())
	}
	return link, nil
}

// maxDumps is how often the kernel is asked for a list that changes while it is read, as containers come and go.
const maxDumps = 50

// whole asks for a list until nothing changed while the kernel gave it (NLM_F_DUMP_INTR): of what is read otherwise, something may be missing.
func whole[T any](list func() ([]T, error)) (found []T, err error) {
	for range maxDumps {
		if found, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return found, err
}

// overlapping returns an address of the node, on another interface than the bridge, that a subnet overlaps with.
func overlapping(bridge string, subnet netip.Prefix) (string, error) {
	links, err := whole(netlink.LinkList)
	if err != nil {
		return "", err
	}
	for _, l := range links {
		if l.Attrs().Name == bridge {
			continue
		}
		addresses, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(l, unix.AF_INET) })
		if err != nil {
			return "", err
		}
		for _, a := range addresses {
			ip, ok := netip.AddrFromSlice(a.IP.To4())
			bits, _ := a.Mask.Size()
			if ok && netip.PrefixFrom(ip, bits).Masked().Overlaps(subnet) {
				return fmt.Sprintf("%s of %s", a.IPNet, l.Attrs().Name), nil
			}
		}
	}
	return "", nil
}

// setSysctl sets a parameter and says whether it was different.
func setSysctl(name, value string) (changed bool, err error) {
	path := filepath.Join(sysctlRoot, name)
	old, err := os.ReadFile(path)
	if err != nil {
		return false, fmt.Errorf("read network parameter: %w", err)
	}
	if strings.TrimSpace(string(old)) == value {
		return false, nil
	}
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		return false, fmt.Errorf("set network parameter: %w", err)
	}
	return true, nil
}

// connect makes a veth pair between the bridge and the network namespace of a process, and configures its end there.
func connect(bridge, veth string, pid int, address, gateway netip.Prefix, rate *api.NetworkRate) error {
	link, err := netlink.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", bridge, err)
	}
	if err := disconnect(veth); err != nil {
		return err
	}
	mtu := nodeMTU()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.MasterIndex = veth, mtu, link.Attrs().Index
	pair := &netlink.Veth{
		LinkAttrs: attrs, PeerName: containerInterface, PeerMTU: uint32(mtu),
		PeerHardwareAddr: hardwareAddress(address.Addr()), PeerNamespace: netlink.NsPid(pid),
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("make interface %s for process %d: %w", veth, pid, err)
	}
	// Where the kernel's bridge calls IP's hooks (br_netfilter), a container reaches its own published port only so.
	if err := netlink.LinkSetHairpin(pair, true); err != nil {
		return fmt.Errorf("set interface %s to hairpin mode: %w", veth, err)
	}
	if err := limitIn(pair, rate); err != nil {
		return err
	}
	if err := configure(pid, address, gateway.Addr(), rate); err != nil {
		return fmt.Errorf("configure %s of process %d: %w", containerInterface, pid, err)
	}
	if err := netlink.LinkSetUp(pair); err != nil {
		return fmt.Errorf("set interface %s up: %w", veth, err)
	}
	return nil
}

// configure sets up the interfaces inside the network namespace of a process.
func configure(pid int, address netip.Prefix, gateway netip.Addr, rate *api.NetworkRate) error {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	for _, name := range []string{"lo", containerInterface} {
		link, err := h.LinkByName(name)
		if err != nil {
			return err
		}
		if name == containerInterface {
			if err := h.AddrReplace(link, &netlink.Addr{IPNet: ipNet(address)}); err != nil {
				return err
			}
			if err := limitOut(h, link, rate); err != nil {
				return err
			}
		}
		if err := h.LinkSetUp(link); err != nil {
			return err
		}
	}
	return h.RouteReplace(&netlink.Route{Gw: gateway.AsSlice()})
}

// disconnect removes a veth pair, if it is there.
func disconnect(veth string) error {
	link, err := netlink.LinkByName(veth)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) { // it went with its container meanwhile
		return fmt.Errorf("remove interface %s: %w", veth, err)
	}
	return nil
}

// vethsOf returns the names of the bridge's veth interfaces.
func vethsOf(bridge string) ([]string, error) {
	link, err := netlink.LinkByName(bridge)
	if err != nil {
		return nil, err
	}
	all, err := whole(netlink.LinkList)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, l := range all {
		if l.Attrs().MasterIndex == link.Attrs().Index && strings.HasPrefix(l.Attrs().Name, vethPrefix) {
			out = append(out, l.Attrs().Name)
		}
	}
	return out, nil
}

// nodeMTU returns the MTU of the way to the outside, so that containers send nothing that doesn't fit.
func nodeMTU() int {
	routes, err := whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return defaultMTU
	}
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() || r.LinkIndex == 0 {
			continue
		}
		if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil && link.Attrs().MTU > 0 {
			return link.Attrs().MTU
		}
	}
	return defaultMTU
}

// hardwareAddress derives a locally administered MAC address, so that an IP address never moves to another one.
func hardwareAddress(a netip.Addr) net.HardwareAddr {
	return append(net.HardwareAddr{0x02, 0x53}, a.AsSlice()...)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
