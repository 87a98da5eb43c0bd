package lab

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// The addresses of the network. They exist in namespaces only.
const (
	prefixBits = 24
	bridgeName = "lab0"
	// maxMachines keeps the host part of an address in one byte.
	maxMachines = 200
)

// groupSuffix is the number of random characters that keep the cgroups of two networks of a process apart: 40 bits.
const groupSuffix = 8

// Network is a switch with machines on it.
type Network struct {
	// dir holds the machines' disks and sockets.
	dir      string
	programs Programs
	// space is the namespace of the switch; nothing but the switch is in it.
	space    netns.NsHandle
	machines []*Machine
	// group names the cgroups of this network's machines.
	group string
}

// Programs are the built programs that the machines run.
type Programs struct {
	// Skep and Runtime are paths of bin/skep and bin/skep-runtime.
	Skep, Runtime string
	// Image is the archive of the built-in image.
	Image string
}

// ProgramsIn returns the programs that `make build` left in dir, or says what is missing.
func ProgramsIn(dir string) (Programs, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Programs{}, err
	}
	programs := Programs{
		Skep: filepath.Join(dir, "skep"), Runtime: filepath.Join(dir, "skep-runtime"), Image: filepath.Join(dir, "skep-hello.tar"),
	}
	for _, name := range []string{programs.Skep, programs.Runtime, programs.Image} {
		if _, err := os.Stat(name); err != nil {
			return Programs{}, fmt.Errorf("%s is not built: run `make build` first", name)
		}
	}
	return programs, nil
}

// Missing says what this process lacks to make machines, or "".
func Missing() string {
	if os.Geteuid() != 0 {
		return "root, for namespaces and cgroups"
	}
	return ""
}

// NewNetwork makes an empty network whose machines keep their disks below dir. The caller closes it.
func NewNetwork(dir string, programs Programs) (*Network, error) {
	space, err := inNewNamespace(func() error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return fmt.Errorf("add the switch: %w", err)
		}
		return netlink.LinkSetUp(bridge)
	})
	if err != nil {
		return nil, err
	}
	// Scripts run beside each other in one process, each with a machine m1.
	group := fmt.Sprintf("skep-lab-%d-%s", os.Getpid(), strings.ToLower(rand.Text()[:groupSuffix]))
	return &Network{dir: dir, programs: programs, space: space, group: group}, nil
}

// inNewNamespace makes a network namespace, calls fn in it, and returns its handle. The calling goroutine's thread comes
// back to the namespace that it was in.
func inNewNamespace(fn func() error) (netns.NsHandle, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	old, err := netns.Get()
	if err != nil {
		return netns.None(), fmt.Errorf("get the network namespace: %w", err)
	}
	defer old.Close()
	space, err := netns.New()
	if err != nil {
		return netns.None(), fmt.Errorf("make a network namespace: %w", err)
	}
	err = errors.Join(fn(), netns.Set(old))
	if err != nil {
		return netns.None(), errors.Join(err, space.Close())
	}
	return space, nil
}

// within calls fn on a thread that is in the namespace. The thread is thrown away if it can't come back.
func within(space netns.NsHandle, fn func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		old, err := netns.Get()
		if err != nil {
			result <- err
			return
		}
		defer old.Close()
		if err := netns.Set(space); err != nil {
			result <- fmt.Errorf("enter the network namespace: %w", err)
			return
		}
		err = fn()
		if backErr := netns.Set(old); backErr == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// address returns the address of the machine with the given number, from 1.
func address(number int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 77, 0, byte(number)})
}

// plug joins a machine's namespace to the switch, with an address and a default route.
func (n *Network) plug(m *Machine) error {
	port := fmt.Sprintf("port%d", m.number)
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: "eth0", PeerNamespace: netlink.NsFd(m.space)}
	err := within(n.space, func() error {
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("add the cable of %s: %w", m.Name, err)
		}
		bridge, err := netlink.LinkByName(bridgeName)
		if err != nil {
			return err
		}
		link, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetMaster(link, bridge), netlink.LinkSetUp(link))
	})
	if err != nil {
		return err
	}
	return within(m.space, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: m.Address.AsSlice(), Mask: net.CIDRMask(prefixBits, 32)}}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("give %s its address: %w", m.Name, err)
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetUp(link), netlink.LinkSetUp(lo))
	})
}

// Renumber gives a machine another address, from 1 to 254, instead of the one that it has.
func (n *Network) Renumber(m *Machine, number int) error {
	before, now := m.Address, address(number)
	m.Address = now
	return within(m.space, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		ip := func(a netip.Addr) *netlink.Addr {
			return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(prefixBits, 32)}}
		}
		return errors.Join(netlink.AddrDel(link, ip(before)), netlink.AddrAdd(link, ip(now)))
	})
}

// Cut unplugs a machine from the switch, and Mend plugs it in again.
func (n *Network) Cut(m *Machine) error { return n.setPort(m, netlink.LinkSetDown) }

// Mend undoes [Network.Cut].
func (n *Network) Mend(m *Machine) error { return n.setPort(m, netlink.LinkSetUp) }

func (n *Network) setPort(m *Machine, set func(netlink.Link) error) error {
	return within(n.space, func() error {
		link, err := netlink.LinkByName(fmt.Sprintf("port%d", m.number))
		if err != nil {
			return fmt.Errorf("find the port of %s: %w", m.Name, err)
		}
		return set(link)
	})
}

// Dir is the directory of the network, with one below it for each machine.
func (n *Network) Dir() string { return n.dir }

// Machine returns the machine of that name, or nil.
func (n *Network) Machine(name string) *Machine {
	i := slices.IndexFunc(n.machines, func(m *Machine) bool { return m.Name == name })
	if i < 0 {
		return nil
	}
	return n.machines[i]
}

// Machines returns all machines in the order in which they were made. The caller must not modify the slice.
func (n *Network) Machines() []*Machine { return n.machines }

// Close ends every machine and removes what they left outside their disks.
func (n *Network) Close() error {
	var errs []error
	for _, m := range n.machines {
		errs = append(errs, m.PowerOff(), m.removeCgroups(), m.closeNamespace())
	}
	return errors.Join(append(errs, n.space.Close())...)
}
