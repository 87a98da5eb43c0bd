package lab

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Loss is a link between two machines that loses packets, in both directions.
type Loss struct {
	network  *Network
	at       *Machine
	table    *nftables.Table
	counters []*nftables.Rule
}

// Lose makes the link between two machines lose one of every so many packets, at random.
func (n *Network) Lose(a, b *Machine, oneOf uint32) (*Loss, error) {
	l := &Loss{network: n, at: a, table: &nftables.Table{Name: "loss", Family: nftables.TableFamilyIPv4}}
	return l, l.with(func(c *nftables.Conn) error {
		c.AddTable(l.table)
		const sourceAt, destinationAt = 12, 16
		for _, side := range []struct {
			name string
			hook *nftables.ChainHook
			at   uint32
		}{{"in", nftables.ChainHookInput, sourceAt}, {"out", nftables.ChainHookOutput, destinationAt}} {
			chain := c.AddChain(&nftables.Chain{
				Name: side.name, Table: l.table, Type: nftables.ChainTypeFilter, Hooknum: side.hook, Priority: nftables.ChainPriorityFilter,
			})
			c.AddRule(&nftables.Rule{Table: l.table, Chain: chain, Exprs: []expr.Any{
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: side.at, Len: 4},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b.Address.AsSlice()},
				&expr.Numgen{Register: 1, Modulus: oneOf, Type: unix.NFT_NG_RANDOM},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.NativeEndian.AppendUint32(nil, 0)},
				&expr.Counter{},
				&expr.Verdict{Kind: expr.VerdictDrop},
			}})
			l.counters = append(l.counters, &nftables.Rule{Table: l.table, Chain: chain})
		}
		return c.Flush()
	})
}

func (l *Loss) with(fn func(*nftables.Conn) error) error {
	return within(l.at.space, func() error {
		c, err := nftables.New()
		if err != nil {
			return fmt.Errorf("lose packets of %s: %w", l.at.Name, err)
		}
		if err := fn(c); err != nil {
			return fmt.Errorf("lose packets of %s: %w", l.at.Name, err)
		}
		return nil
	})
}

// Lost returns how many packets were lost.
func (l *Loss) Lost() (lost uint64, err error) {
	return lost, l.with(func(c *nftables.Conn) error {
		for _, r := range l.counters {
			rules, err := c.GetRules(r.Table, r.Chain)
			if err != nil {
				return err
			}
			for _, rule := range rules {
				for _, e := range rule.Exprs {
					if counter, ok := e.(*expr.Counter); ok {
						lost += counter.Packets
					}
				}
			}
		}
		return nil
	})
}

// End makes the link well again.
func (l *Loss) End() error {
	return l.with(func(c *nftables.Conn) error {
		c.DelTable(l.table)
		return c.Flush()
	})
}
