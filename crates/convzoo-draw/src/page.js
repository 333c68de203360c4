// Goes to the block or layer whose name is typed: the one of that name, else the first that contains it.
const field = document.getElementById('find');
const names = [...document.querySelectorAll('#names option')];
const find = () => {
  const asked = field.value.trim().toLowerCase();
  const found = asked && (names.find(name => name.value.toLowerCase() === asked)
    || names.find(name => name.value.toLowerCase().includes(asked)));
  document.getElementById('found').textContent = asked && !found ? 'nothing is called so' : '';
  if (found) location.hash = found.dataset.to;
};
field.form.addEventListener('submit', event => { event.preventDefault(); find(); });
field.addEventListener('input', () => {
  if (names.some(name => name.value === field.value)) find();
});
