// Package catest has what tests of and around the CA need: a Registry in memory, the contract that every Registry passes, a
// whole swarm's CA in a line, and certificates with which nobody should get anywhere.
//
// The roots, certificates and tokens are real ones, made by package ca; only the memory is fake.
package catest
