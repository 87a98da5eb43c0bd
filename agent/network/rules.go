package network

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	tableName = "skep"
	// ruleBuffer is the size of the socket's buffers: all rules of a full bridge go in one transaction.
	ruleBuffer = 16 << 20
	// ifNameLen is IFNAMSIZ.
	ifNameLen = 16
	// The registers that a comparison of one value, and a key of two, are loaded into.
	reg1, reg2 = 1, 2
	// keyReg is the first of the 4-byte registers that a name of 16 bytes fills; keyAddrReg comes after it.
	keyReg, keyAddrReg = unix.NFT_REG32_00, unix.NFT_REG32_00 + ifNameLen/4
)

// rules are all rules of this node, derived from the leases (N1).
type rules struct {
	bridge string
	subnet netip.Prefix
	// members have the interface and address of each container, sorted by address.
	members []member
	// guard keeps the node from forwarding what has nothing to do with containers.
	guard bool
}

type member struct {
	veth    string
	address netip.Addr
	ports   []port
}

// rulesOf returns the rules for leases.
func rulesOf(bridge string, subnet netip.Prefix, guard bool, leases map[string]lease) rules {
	r := rules{bridge: bridge, subnet: subnet.Masked(), guard: guard}
	for _, id := range slices.Sorted(maps.Keys(leases)) {
		r.members = append(r.members, member{veth: vethName(id), address: leases[id].Address, ports: leases[id].Ports})
	}
	slices.SortFunc(r.members, func(a, b member) int { return cmp.Compare(a.veth, b.veth) })
	return r
}

// apply replaces the tables in one transaction.
func (r rules) apply() error {
	c, err := nftConn()
	if err != nil {
		return err
	}
	r.addSegment(replace(c, nftables.TableFamilyBridge))
	r.addRouting(replace(c, nftables.TableFamilyIPv4))
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write nftables rules (the kernel needs nf_tables with NAT and bridge support): %w", err)
	}
	return nil
}

// removeRules removes the tables.
func removeRules() error {
	c, err := nftConn()
	if err != nil {
		return err
	}
	for _, family := range []nftables.TableFamily{nftables.TableFamilyBridge, nftables.TableFamilyIPv4} {
		table := &nftables.Table{Name: tableName, Family: family}
		c.AddTable(table) // so that its removal succeeds
		c.DelTable(table)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("remove nftables rules: %w", err)
	}
	return nil
}

func nftConn() (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(func(s *netlink.Conn) error {
		if err := s.SetWriteBuffer(ruleBuffer); err != nil {
			return err
		}
		return s.SetReadBuffer(ruleBuffer)
	}))
}

// table is a table under construction.
type table struct {
	c *nftables.Conn
	t *nftables.Table
}

// replace begins an empty table in the place of the last one.
func replace(c *nftables.Conn, family nftables.TableFamily) table {
	t := &nftables.Table{Name: tableName, Family: family}
	c.AddTable(t)
	c.DelTable(t)
	return table{c: c, t: c.AddTable(t)}
}

func (t table) chain(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
	return t.c.AddChain(&nftables.Chain{Name: name, Table: t.t, Type: kind, Hooknum: hook, Priority: priority})
}

// rule adds a rule of several parts.
func (t table) rule(chain *nftables.Chain, parts ...[]expr.Any) {
	t.c.AddRule(&nftables.Rule{Table: t.t, Chain: chain, Exprs: slices.Concat(parts...)})
}

// addSegment keeps containers from using each other's addresses: what an interface sends must come from its container's address,
// and be IPv4 or ARP. An interface that isn't known may send nothing (N2).
func (r rules) addSegment(t table) {
	allowed := &nftables.Set{
		Table: t.t, Name: "addresses", Concatenation: true,
		KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIPAddr),
	}
	var elements []nftables.SetElement
	for _, m := range r.members {
		elements = append(elements, nftables.SetElement{Key: append(ifName(m.veth), m.address.AsSlice()...)})
	}
	// The only error is that of a set type that has no size, and these have.
	_ = t.c.AddSet(allowed, elements)
	chain := t.chain("spoof", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	ours := startsWith(expr.MetaKeyIIFNAME, vethPrefix)
	const ipSource, arpSource = 12, 14
	for proto, offset := range map[uint16]uint32{unix.ETH_P_IP: ipSource, unix.ETH_P_ARP: arpSource} {
		t.rule(chain, ours, etherType(expr.CmpOpEq, proto), []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: keyReg},
			&expr.Payload{DestRegister: keyAddrReg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
			&expr.Lookup{SourceRegister: keyReg, SetName: allowed.Name, SetID: allowed.ID, Invert: true},
		}, verdict(expr.VerdictDrop))
	}
	t.rule(chain, ours, etherType(expr.CmpOpNeq, unix.ETH_P_IP), etherType(expr.CmpOpNeq, unix.ETH_P_ARP), verdict(expr.VerdictDrop))
}

// addRouting decides who may talk to whom, and translates addresses.
func (r rules) addRouting(t table) {
	in, out := iface(expr.MetaKeyIIFNAME, expr.CmpOpEq, r.bridge), iface(expr.MetaKeyOIFNAME, expr.CmpOpEq, r.bridge)
	notIn, notOut := iface(expr.MetaKeyIIFNAME, expr.CmpOpNeq, r.bridge), iface(expr.MetaKeyOIFNAME, expr.CmpOpNeq, r.bridge)
	accept, drop := verdict(expr.VerdictAccept), verdict(expr.VerdictDrop)
	loopback, linkLocal := netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16")

	// The bridge routes to 127.0.0.0/8 for published ports; containers must not use that. Nor must they reach what a cloud
	// tells its machines at 169.254.169.254, the node's own credentials among it.
	raw := t.chain("raw", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	t.rule(raw, in, within(destination, loopback), drop)
	t.rule(raw, in, within(destination, linkLocal), drop)

	input := t.chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	t.rule(input, in, conntrack(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept)
	t.rule(input, in, drop)

	forward := t.chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	t.rule(forward, conntrack(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept)
	t.rule(forward, conntrack(expr.CtKeySTATUS, ctStatusDNAT), accept)
	t.rule(forward, notIn, out, drop)
	if r.guard {
		t.rule(forward, notIn, notOut, drop)
	}

	prerouting := t.chain("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	output := t.chain("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	for _, m := range r.members {
		for _, p := range m.ports {
			t.rule(prerouting, localDestination(), p.match(), translate(m.address, p.Target))
			t.rule(output, localDestination(), p.match(), translate(m.address, p.Target))
		}
	}

	postrouting := t.chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	masquerade := []expr.Any{&expr.Masq{}}
	t.rule(postrouting, within(source, r.subnet), notOut, masquerade)
	// A container that uses a published port of its own node: the answer must come back the same way.
	t.rule(postrouting, within(source, r.subnet), out, conntrack(expr.CtKeySTATUS, ctStatusDNAT), masquerade)
	t.rule(postrouting, within(source, loopback), out, masquerade)
}

// ctStatusDNAT is IPS_DST_NAT.
const ctStatusDNAT = 1 << 5

// header is a place in an IPv4 header.
type header uint32

const (
	source      header = 12
	destination header = 16
)

// within matches an address of the packet that is in a prefix.
func within(h header, p netip.Prefix) []expr.Any {
	mask := make([]byte, 4)
	binary.BigEndian.PutUint32(mask, ^uint32(0)<<(32-p.Bits()))
	return []expr.Any{
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: uint32(h), Len: 4},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: p.Masked().Addr().AsSlice()},
	}
}

// iface compares the name of an interface.
func iface(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: reg1}, &expr.Cmp{Op: op, Register: reg1, Data: ifName(name)}}
}

// startsWith matches interfaces whose names begin with prefix.
func startsWith(key expr.MetaKey, prefix string) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: reg1}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte(prefix)}}
}

func ifName(name string) []byte {
	out := make([]byte, ifNameLen)
	copy(out, name)
	return out
}

func etherType(op expr.CmpOp, proto uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseLLHeader, Offset: 12, Len: 2},
		&expr.Cmp{Op: op, Register: reg1, Data: binary.BigEndian.AppendUint16(nil, proto)},
	}
}

// conntrack matches connections of which any of the bits is set.
func conntrack(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: reg1},
		&expr.Bitwise{
			SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: make([]byte, 4)},
	}
}

// localDestination matches packets to an address of the node.
func localDestination() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg1, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// match matches packets to the published port.
func (p port) match() []expr.Any {
	proto := byte(unix.IPPROTO_TCP)
	if p.Protocol == "udp" {
		proto = unix.IPPROTO_UDP
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{proto}},
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: binary.BigEndian.AppendUint16(nil, p.Published)},
	}
}

// translate sends packets to a container.
func translate(to netip.Addr, port uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: reg1, Data: to.AsSlice()},
		&expr.Immediate{Register: reg2, Data: binary.BigEndian.AppendUint16(nil, port)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1, RegProtoMin: reg2, Specified: true},
	}
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }
