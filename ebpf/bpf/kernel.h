/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The few kernel fields that the probes read. Each struct is a slice of the kernel's: CO-RE finds the field by name
 * in the running kernel's BTF when the object is loaded, so no vmlinux.h of one kernel is baked in.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;

#define CORE __attribute__((preserve_access_index))

/*
 * An entry of a descriptor table is a number to the verifier, and so is whatever it leads to. Where the kernel has
 * bpf_rdonly_cast (6.2 on), TYPED makes a pointer of it and FIELD is a plain load. The object for older kernels is made
 * of the same sources with -DPLAIN_LOADS: there each FIELD is a helper's call, some 25 ns.
 */
#ifdef PLAIN_LOADS
#define TYPED(type, address) ((type *)(address))
#define FIELD(object, field) BPF_CORE_READ(object, field)
#else
/* A call to this number becomes a call of bpf_rdonly_cast before the object is loaded: the loader knows no kfuncs. */
#define CAST_MARK 0x0f07e71d
typedef void *(*cast_fn)(const void *object, u32 btf_id);
#define TYPED(type, address) ((type *)((cast_fn)CAST_MARK)((const void *)(address), bpf_core_type_id_kernel(type)))
#define FIELD(object, field) ((object)->field)
#endif

struct qstr {
	u64 hash_len;
	const unsigned char *name;
} CORE;

struct hlist_node {
	struct hlist_node *next;
} CORE;

struct hlist_head {
	struct hlist_node *first;
} CORE;

struct inode;
struct dentry;

struct super_block {
	u32 s_dev;
	struct dentry *s_root;
} CORE;

struct inode {
	u16 i_mode;
	struct super_block *i_sb;
	unsigned long i_ino;
	s64 i_size;
	struct hlist_head i_dentry;
} CORE;

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	union {
		struct hlist_node d_alias;
	} d_u;
} CORE;

struct path {
	struct dentry *dentry;
} CORE;

struct file {
	u32 f_mode;
	struct inode *f_inode;
	struct path f_path;
	s64 f_pos;
} CORE;

struct kiocb {
	struct file *ki_filp;
	s64 ki_pos;
} CORE;

struct fdtable {
	u32 max_fds;
	struct file **fd;
} CORE;

struct files_struct {
	struct fdtable *fdt;
} CORE;

struct address_space {
	struct inode *host;
} CORE;

struct vm_area_struct {
	struct file *vm_file;
} CORE;

struct vm_fault {
	struct vm_area_struct *vma;
	unsigned long pgoff;
} CORE;

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
} CORE;

struct mm_struct {
	unsigned long arg_start;
	unsigned long arg_end;
} CORE;

struct kernfs_node {
	const char *name;
	struct kernfs_node *__parent;
} CORE;

/* Before 6.15. */
struct kernfs_node___of_old {
	struct kernfs_node *parent;
} CORE;

struct cgroup {
	struct kernfs_node *kn;
	int level;
} CORE;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
} CORE;

struct css_set {
	struct cgroup_subsys_state *subsys[1];	/* as many as the kernel has controllers */
	struct cgroup *dfl_cgrp;
} CORE;

struct thread_info {
	unsigned long flags;
	u32 status;
} CORE;

struct task_struct {
	struct thread_info thread_info;
	int pid;
	int tgid;
	unsigned int flags;
	unsigned in_iowait : 1;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	u64 start_boottime;
	struct mm_struct *mm;
	struct files_struct *files;
	struct signal_struct *signal;
	struct css_set *cgroups;
} CORE;

struct linux_binprm {
	const char *interp;
} CORE;

struct io_uring_cqe {
	u64 user_data;
	s32 res;
};

struct io_rw {
	struct kiocb kiocb;
} CORE;

struct io_kiocb {
	struct file *file;
	u8 opcode;
} CORE;

#if defined(__TARGET_ARCH_arm64)

struct user_pt_regs {
	u64 regs[31];
};
struct pt_regs {
	u64 regs[31];
	u64 orig_x0;
	s32 syscallno;
} CORE;

#define CALL_NUMBER(r) ((u64)(s64)(r)->syscallno)
#define ARG1(r) ((r)->orig_x0)
#define ARG2(r) ((r)->regs[1])
#define ARG3(r) ((r)->regs[2])
#define ARG4(r) ((r)->regs[3])
#define ARG5(r) ((r)->regs[4])
#define TIF_32BIT_MASK (1UL << 22)
#define IS_COMPAT(task) ((task)->thread_info.flags & TIF_32BIT_MASK)

#elif defined(__TARGET_ARCH_x86)

struct pt_regs {
	unsigned long r10;
	unsigned long r8;
	unsigned long dx;
	unsigned long si;
	unsigned long di;
	unsigned long orig_ax;
} CORE;

#define CALL_NUMBER(r) ((u64)(r)->orig_ax)
#define ARG1(r) ((r)->di)
#define ARG2(r) ((r)->si)
#define ARG3(r) ((r)->dx)
#define ARG4(r) ((r)->r10)
#define ARG5(r) ((r)->r8)
#define TS_COMPAT 0x2
#define IS_COMPAT(task) ((task)->thread_info.status & TS_COMPAT)

#else
#error "build with -D__TARGET_ARCH_x86 or -D__TARGET_ARCH_arm64"
#endif
