# Prints the constants that convzoo-train's tests of optimizers, schedules, losses and clipping compare with.
import torch
torch.set_printoptions(precision=9)
def run(make, **kw):
    p = torch.nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))
    o = make([p], **kw)
    for _ in range(5):
        o.zero_grad()
        (0.5 * (p * torch.tensor([1.0, 2.0, 3.0]) - torch.tensor([1.0, -1.0, 0.5])) ** 2).sum().backward()
        o.step()
    return [round(v, 8) for v in p.tolist()]
O = torch.optim
print("sgd", run(O.SGD, lr=0.05))
print("momentum", run(O.SGD, lr=0.05, momentum=0.9, weight_decay=0.01))
print("nesterov", run(O.SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01))
print("adam", run(O.Adam, lr=0.05, weight_decay=0.01))
print("adamw", run(O.AdamW, lr=0.05, weight_decay=0.1))
print("adamw betas", run(O.AdamW, lr=0.05, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1))
print("rmsprop", run(O.RMSprop, lr=0.01, weight_decay=0.01))
print("rmsprop momentum", run(O.RMSprop, lr=0.05, alpha=0.9, eps=1.0, momentum=0.9))
print("rmsprop centered", run(O.RMSprop, lr=0.01, centered=True))

S = torch.optim.lr_scheduler
def rates(make, n, base=0.1):
    o = O.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)
    s = make(o); r = []
    for _ in range(n):
        r.append(o.param_groups[0]["lr"]); o.step(); s.step()
    return [float(f"{v:.9g}") for v in r]
print("cosine", rates(lambda o: S.CosineAnnealingLR(o, 12, eta_min=0.01), 12))
print("linear", rates(lambda o: S.LinearLR(o, 1.0, 0.1, 12), 12))
print("onecycle", rates(lambda o: S.OneCycleLR(o, max_lr=0.1, total_steps=12, cycle_momentum=False), 12))
print("onecycle2", rates(lambda o: S.OneCycleLR(o, max_lr=0.1, total_steps=12, pct_start=0.25, div_factor=10, final_div_factor=100, cycle_momentum=False), 12))
print("step", rates(lambda o: S.StepLR(o, 2, 0.5), 6))   # per epoch
print("multistep", rates(lambda o: S.MultiStepLR(o, [1, 4], 0.1), 6))
print("warm cosine", rates(lambda o: S.SequentialLR(o, [S.LinearLR(o, 0.1, 1.0, 4), S.CosineAnnealingLR(o, 8)], [4]), 12))
def plateau(mode, values, **kw):
    o = O.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    s = S.ReduceLROnPlateau(o, mode, **kw); r=[]
    for v in values:
        s.step(v); r.append(float(f"{o.param_groups[0]['lr']:.9g}"))
    return r
v = [0.5, 0.6, 0.6, 0.60001, 0.59, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7]
print("plateau max", plateau("max", v, factor=0.1, patience=2))
print("plateau min", plateau("min", [1 - x for x in v], factor=0.5, patience=1, min_lr=0.02))
torch.manual_seed(0)
l = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]]); t = torch.tensor([0, 2])
print("ce", torch.nn.functional.cross_entropy(l, t).item(), "smooth", torch.nn.functional.cross_entropy(l, t, label_smoothing=0.1).item())
w = torch.tensor([2.0, 1.0, 0.5])
print("weighted ce", torch.nn.functional.cross_entropy(l, t, weight=w).item(), "smooth", torch.nn.functional.cross_entropy(l, t, weight=w, label_smoothing=0.1).item())
a = torch.nn.Parameter(torch.zeros(2)); b = torch.nn.Parameter(torch.zeros(2, 1))
a.grad = torch.tensor([3.0, 4.0]); b.grad = torch.tensor([[12.0], [0.0]])
print("norm", torch.nn.utils.clip_grad_norm_([a, b], 6.5).item(), a.grad.tolist(), b.grad.tolist())
